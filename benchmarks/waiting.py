"""How soon a waiting request learns of a completed job: `python -m benchmarks.waiting`.

Starts the real web tier; this process plays the daemon (it claims, commits the completion and sends the hint)
and all the clients, each with one job and one request that waits for it. Time runs from the return of the
commit to the last byte of the answer.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import psutil

from benchmarks.service import make_agents
from umrgen_cli.processes import running, start_daemon
from umrgen_core.accounts import Accounts
from umrgen_core.claim_store import ClaimStore
from umrgen_core.clock import SystemClock
from umrgen_core.config import Settings, load_settings
from umrgen_core.database import Database, open_database
from umrgen_core.files import FileStore, Shelf
from umrgen_core.job_ends import NewOutput
from umrgen_core.names import new_output_filename, new_process_id, output_disk_name
from umrgen_core.wakeup import Listener, Wakeup

ROOT = Path(__file__).parents[1]
MOST_OF_AN_AGENT = 50
SETTLE_S = 1.0
PAUSE_S = 0.05
SAMPLES = 100
MANY = 1_000_000
FORMS = {"long-poll": "/api/v1/status/{}?wait=60&until=done", "events": "/api/v1/events/{}"}
WEBHOOK = "webhook"


class Worker:
    """Completes jobs as the daemon does, without painting."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._model = settings.default_model
        self._claims = ClaimStore(database, settings)
        self._files = FileStore(settings.storage.data_dir)
        self._files.prepare()
        self._wakeup = Wakeup(settings.storage.data_dir, Listener.INFER, new_process_id())

    async def complete_next(self) -> tuple[str, float]:
        """The job that was completed, and when its commit returned."""
        claim = await self._claims.claim_next(self._model, "benchmark")
        if claim is None:
            raise SystemExit("no job waits")
        name = output_disk_name(claim.job_id, claim.fence)
        published = self._files.publish_bytes(Shelf.OUTPUTS, name, b"not a picture")
        output = NewOutput(new_output_filename(), name, 64, 64, published.bytes, published.sha256)
        await self._claims.complete(claim, output, {"total": 0.1}, 0.1)
        committed = time.perf_counter()
        self._wakeup.send(Listener.API, claim.job_id)
        return claim.job_id, committed

    def close(self) -> None:
        """Take the socket away."""
        self._wakeup.close()


async def ask(port: int, key: str, method: str, path: str, body: bytes = b"") -> bytes:
    """The whole answer to one request on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n"
    writer.write(f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    answer = await reader.read()
    writer.close()
    return answer


async def wait_for(port: int, key: str, path: str) -> float:
    """When the answer to a waiting request was there."""
    answer = await ask(port, key, "GET", path)
    ended = time.perf_counter()
    if b'"state":"completed"' not in answer:
        raise SystemExit(f"{path}: {answer[:300]!r}")
    return ended


def start_web_tier(data_dir: Path, exits: ExitStack) -> tuple[Settings, int, psutil.Process]:
    """The real process: its settings, port and process."""
    environment = {
        "UMRGEN_STORAGE__DATA_DIR": str(data_dir),
        "UMRGEN_STORAGE__BALLAST_BYTES": "0",
        "UMRGEN_API__PORT": "0",
        "UMRGEN_LIMITS__QUEUED_JOBS": str(MANY),
        "UMRGEN_WEBHOOKS__ALLOW_HTTP": "true",
        "UMRGEN_WEBHOOKS__ALLOW_PRIVATE": "true",
    }
    daemon = start_daemon("umrgen_api", ROOT / "config.toml", data_dir.parent / "api.out", environment)
    exits.enter_context(running(daemon))
    port = int(str(daemon.wait_for_event("listening", 60)["port"]))
    settings = load_settings(ROOT / "config.toml")
    storage = settings.storage.model_copy(update={"data_dir": data_dir})
    return settings.model_copy(update={"storage": storage}), port, psutil.Process(daemon.process.pid)


async def measure(waiters: int, form: str) -> dict[str, object]:
    """Latencies in milliseconds with so many waiting requests, and the memory that one takes."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as exits:
        settings, port, process = start_web_tier(Path(folder) / "data", exits)
        async with open_database(settings, SystemClock()) as database:
            worker = Worker(settings, database)
            crowd = Crowd(port, await make_agents(Accounts(database), -(-waiters // MOST_OF_AN_AGENT)), form)
            before = process.memory_info().rss
            for _ in range(waiters):
                await crowd.join()
            await asyncio.sleep(SETTLE_S)  # until the last of them waits too
            taken = process.memory_info().rss - before
            latencies = [await complete_one(worker, crowd) for _ in range(SAMPLES)]
            await crowd.disperse()
            worker.close()
    return {
        "form": form,
        "waiters": waiters,
        "p50_ms": round(statistics.median(latencies) * 1e3, 2),
        "p99_ms": round(statistics.quantiles(latencies, n=100)[98] * 1e3, 2),
        "kb_a_waiter": round(taken / waiters / 1e3, 1),
    }


async def complete_one(worker: Worker, crowd: Crowd) -> float:
    """Seconds from a commit to the answer of the client who waited for it; another takes its place."""
    job_id, committed = await worker.complete_next()
    answered = await crowd.leave(job_id)
    await crowd.join()
    await asyncio.sleep(PAUSE_S)
    return answered - committed


async def measure_webhooks(jobs: int) -> dict[str, object]:
    """Milliseconds from the commit to the whole POST at the receiver, with so many jobs that want one."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as exits:
        settings, port, _ = start_web_tier(Path(folder) / "data", exits)
        async with open_database(settings, SystemClock()) as database:
            worker = Worker(settings, database)
            keys = itertools.cycle(await make_agents(Accounts(database), -(-jobs // MOST_OF_AN_AGENT)))
            arrived: dict[str, asyncio.Future[float]] = {}
            receiver = await asyncio.start_server(lambda r, w: receive(r, w, arrived), "127.0.0.1", 0)
            url = f"http://127.0.0.1:{receiver.sockets[0].getsockname()[1]}/"
            body = json.dumps({"prompt": "a star", "callback_url": url}).encode()
            latencies = []
            for sample in range(jobs + SAMPLES):
                answer = await ask(port, next(keys), "POST", "/api/v1/generate", body)
                job_id = json.loads(answer.partition(b"\r\n\r\n")[2])["job_id"]
                arrived[job_id] = asyncio.get_running_loop().create_future()
                if sample >= jobs:
                    done, committed = await worker.complete_next()
                    latencies.append(await arrived[done] - committed)
            receiver.close()
            worker.close()
    return {
        "form": WEBHOOK,
        "waiters": jobs,
        "p50_ms": round(statistics.median(latencies) * 1e3, 2),
        "p99_ms": round(statistics.quantiles(latencies, n=100)[98] * 1e3, 2),
    }


async def receive(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, arrived: dict[str, asyncio.Future[float]]
) -> None:
    """Take one POST, note when it was there, and answer 204."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = int(head.partition("content-length:")[2].partition("\r\n")[0])
    body = json.loads(await reader.readexactly(length))
    arrived[body["data"]["job_id"]].set_result(time.perf_counter())
    writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
    writer.close()


class Crowd:
    """Clients, each with one job and one request that waits for it."""

    def __init__(self, port: int, keys: list[str], form: str) -> None:
        self._port = port
        self._keys = itertools.cycle(keys)
        self._form = form
        self._waiting: dict[str, asyncio.Task[float]] = {}

    async def join(self) -> None:
        """One client more."""
        key = next(self._keys)
        answer = await ask(self._port, key, "POST", "/api/v1/generate", b'{"prompt": "a star"}')
        job_id = json.loads(answer.partition(b"\r\n\r\n")[2])["job_id"]
        self._waiting[job_id] = asyncio.create_task(wait_for(self._port, key, FORMS[self._form].format(job_id)))

    async def leave(self, job_id: str) -> float:
        """When the client of this job had its answer."""
        return await self._waiting.pop(job_id)

    async def disperse(self) -> None:
        """All hang up."""
        for task in self._waiting.values():
            task.cancel()
        await asyncio.gather(*self._waiting.values(), return_exceptions=True)


def main() -> None:
    """Print one JSON line for each number of waiters."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--waiters", type=int, nargs="*", default=[1, 100, 1000])
    for waiters in parser.parse_args().waiters:
        for form in FORMS:
            print(json.dumps(asyncio.run(measure(waiters, form))))
        print(json.dumps(asyncio.run(measure_webhooks(waiters))))


if __name__ == "__main__":
    main()
