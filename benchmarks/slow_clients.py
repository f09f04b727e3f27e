"""What slow clients cost the others: `python -m benchmarks.slow_clients`.

Starts the real web tier, then reads a status and submits a job in turn over one connection: alone, then beside
sockets that hold on to the server (a third drip a request head byte by byte, a third a body, a third sit idle
after one answer), then alone again, since the store has grown. The time limits are those of config.toml.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import json
import multiprocessing
import statistics
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing.queues import Queue
from pathlib import Path

import psutil

from umrgen_cli.processes import Daemon, running, start_daemon
from umrgen_core.config import load_settings

ROOT = Path(__file__).parents[1]
DRIP_S = 1.0
UNLIMITED = "1000000"
KINDS = ("head", "body", "idle")
Socket = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Report = dict[str, dict[str, int]]


@dataclass
class Times:
    """Seconds that requests took, by kind."""

    reads: list[float] = field(default_factory=list)
    generates: list[float] = field(default_factory=list)

    def summary(self, lasted_s: float) -> dict[str, object]:
        """Requests a second, and percentiles in milliseconds."""
        served = len(self.reads) + len(self.generates)
        kinds = {"status": self.reads, "generate": self.generates}
        return {"requests_per_s": round(served / lasted_s, 1)} | {
            f"{kind}_ms": {
                "p50": round(statistics.median(values) * 1000, 2),
                "p99": round(statistics.quantiles(values, n=100)[98] * 1000, 2),
                "max": round(max(values) * 1000, 2),
            }
            for kind, values in kinds.items()
        }


class Client:
    """A client that behaves well: one connection, one request at a time."""

    def __init__(self, port: int, key: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def ask(self, method: str, path: str, body: str | None = None) -> tuple[float, dict[str, object]]:
        """Seconds and JSON of one request. Raises SystemExit unless it succeeds."""
        began = time.perf_counter()
        self._connection.request(method, path, body, self._headers)
        answer = self._connection.getresponse()
        content = answer.read()
        took_s = time.perf_counter() - began
        if answer.status >= 400:
            raise SystemExit(f"{method} {path} was answered {answer.status}: {content!r}")
        return took_s, json.loads(content)

    def work(self, seconds: float) -> Times:
        """A generate and a look at it, again and again."""
        times, end = Times(), time.monotonic() + seconds
        while time.monotonic() < end:
            took_s, accepted = self.ask("POST", "/api/v1/generate", '{"prompt": "a red circle"}')
            times.generates.append(took_s)
            times.reads.append(self.ask("GET", str(accepted["status_url"]))[0])
        return times


async def _open(kind: str, port: int, key: str) -> Socket:
    authorized = f"Host: x\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n"
    first = {
        "head": "GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ",
        "body": f"POST /api/v1/generate HTTP/1.1\r\n{authorized}Content-Length: 60000\r\n\r\n",
        "idle": "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    }[kind]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(first.encode())
    return reader, writer


async def _hold(kind: str, opened: Socket, end: float) -> bool:
    """Keep a slow socket until `end`; whether the server closed it before."""
    reader, writer = opened
    dripping = None if kind == "idle" else asyncio.create_task(_drip(writer))
    closed = True
    try:
        async with asyncio.timeout(end - time.monotonic()):
            with contextlib.suppress(ConnectionError):
                while await reader.read(4096):
                    pass
    except TimeoutError:
        closed = False
    if dripping is not None:
        dripping.cancel()
    writer.transport.abort()
    return closed


async def _drip(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while not writer.is_closing():
            writer.write(b"x")
            await asyncio.sleep(DRIP_S)


async def _hold_all(port: int, key: str, sockets: int, seconds: float, ready: Queue[None]) -> Report:
    kinds = [KINDS[number % len(KINDS)] for number in range(sockets)]
    opened = await asyncio.gather(*(_open(kind, port, key) for kind in kinds))
    ready.put(None)
    end = time.monotonic() + seconds
    closed = await asyncio.gather(*(_hold(kind, one, end) for kind, one in zip(kinds, opened, strict=True)))
    ended = Counter(kind for kind, was_closed in zip(kinds, closed, strict=True) if was_closed)
    return {kind: {"opened": kinds.count(kind), "closed_by_the_server": ended[kind]} for kind in KINDS}


def hold_sockets(port: int, key: str, sockets: int, seconds: float, ready: Queue[None], reports: Queue[Report]) -> None:
    """Entry of the process that is slow: it leaves the measuring one alone."""
    reports.put(asyncio.run(_hold_all(port, key, sockets, seconds, ready)))


def start_web_tier(data_dir: Path, exits: ExitStack) -> tuple[Daemon, int]:
    """The web tier on a free port, without limits that a measurement would meet."""
    limits = ("RATE_PER_MINUTE", "READS_PER_MINUTE", "CONCURRENT_JOBS", "QUEUED_JOBS")
    environment = {
        "UMRGEN_STORAGE__DATA_DIR": str(data_dir),
        "UMRGEN_STORAGE__BALLAST_BYTES": "0",
        "UMRGEN_API__PORT": "0",
        **{f"UMRGEN_LIMITS__{limit}": UNLIMITED for limit in limits},
    }
    daemon = start_daemon("umrgen_api", ROOT / "config.toml", data_dir / "api.out", environment)
    exits.enter_context(running(daemon))
    return daemon, int(str(daemon.wait_for_event("listening", 60)["port"]))


def measure(data_dir: Path, exits: ExitStack, sockets: int, seconds: float) -> dict[str, object]:
    """Every figure."""
    daemon, port = start_web_tier(data_dir, exits)
    process = psutil.Process(daemon.process.pid)
    key = load_settings(ROOT / "config.toml").auth.development_key
    client = Client(port, key)
    client.work(min(seconds, 3))  # warm-up
    rss = {"before": _megabytes(process)}
    alone = client.work(seconds).summary(seconds)
    rss["after_alone"] = _megabytes(process)
    context = multiprocessing.get_context("spawn")
    ready: Queue[None] = context.Queue()
    reports: Queue[Report] = context.Queue()
    slow = context.Process(target=hold_sockets, args=(port, key, sockets, seconds + 1, ready, reports))
    slow.start()
    ready.get(timeout=60)
    rss["with_sockets_open"] = _megabytes(process)
    beside = client.work(seconds).summary(seconds)
    rss["at_the_end"] = _megabytes(process)
    report = reports.get(timeout=60)
    slow.join()
    again = client.work(seconds).summary(seconds)
    return {
        "slow_sockets": sockets,
        "seconds": seconds,
        "alone": alone,
        "beside_slow_sockets": beside,
        "alone_again": again,
        "web_tier_rss_mb": rss,
        "sockets": report,
    }


def _megabytes(process: psutil.Process) -> float:
    return round(float(process.memory_info().rss) / 1e6, 1)


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sockets", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=30, help="of each of the three measurements")
    options = parser.parse_args()
    with ExitStack() as exits, tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(Path(folder), exits, options.sockets, options.seconds), indent=2))


if __name__ == "__main__":
    main()
