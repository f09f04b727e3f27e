"""POST /generate from 32 clients: how many a second, beside a bare server's, and how long the slowest wait."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.cpu import read_cpu_s
from benchmarks.figure import Figure, Judged, Plan, Result, Sweep
from benchmarks.load import Ask, Load, run_load
from benchmarks.rounds import alternate
from benchmarks.service import Server, open_box, running_yardstick

CLIENTS = 32
POSTS = 3000
WARM_UP = 300
SWEPT = (1, 4, 16, 32, 64)
P99_BAR_MS = 25.0
BODY = b'{"prompt": "a red circle on a white background", "seed": 7}'


@dataclass(frozen=True, slots=True)
class Burst:
    """Of so many clients."""

    per_s: float
    p50_ms: float
    p99_ms: float
    cpu_us: float


def measure(plan: Plan) -> Result:
    """Every round begins with an empty queue and a new process."""
    posts = plan.count(POSTS, 2 * CLIENTS)
    ways: dict[str, Callable[[], Burst]] = {
        "post": lambda: post(plan, CLIENTS, posts),
        "hello": lambda: say_hello(plan, CLIENTS, posts),
    }
    taken = alternate(plan.rounds, ways)
    bursts, hellos = taken["post"], taken["hello"]
    swept = [(clients, post(plan, clients, posts // 2)) for clients in SWEPT]
    beside = {
        "p50, ms": median(burst.p50_ms for burst in bursts),
        "processor time a POST, µs": median(burst.cpu_us for burst in bursts),
        "share of a core": median(burst.per_s * burst.cpu_us / 1e6 for burst in bursts),
    }
    return Result(
        [
            Figure(
                "enqueue_http.p99",
                f"POST /generate from {CLIENTS} clients: p99",
                "ms",
                [burst.p99_ms for burst in bursts],
                judged=Judged.VALUE,
                bar=P99_BAR_MS,
                beside=beside,
            ),
            Figure(
                "enqueue_http.rate",
                "POSTs a second ÷ requests a second of a bare aiohttp server, same clients",
                "POSTs/s",
                [burst.per_s for burst in bursts],
                [burst.per_s for burst in hellos],
            ),
        ],
        [
            Sweep(
                "http_clients",
                "POST /generate: how long a client waits, by clients at once",
                "clients",
                "ms",
                {
                    "p50": [(clients, burst.p50_ms) for clients, burst in swept],
                    "p99": [(clients, burst.p99_ms) for clients, burst in swept],
                },
                logarithmic=True,
            )
        ],
    )


def post(plan: Plan, clients: int, posts: int) -> Burst:
    """Let each client, an agent of its own, post again and again."""
    with open_box(plan.folder) as box:
        asks = [[Ask("/api/v1/generate", "POST", key, BODY)] for key in box.make_keys(clients)]
        return _burst(box.start_web(), asks, posts)


def say_hello(plan: Plan, clients: int, requests: int) -> Burst:
    """The same from a server that does nothing: what the clients, the loop and the machine allow at most."""
    with TemporaryDirectory(dir=plan.folder) as place, running_yardstick(Path(place)) as bare:
        return _burst(bare, [[Ask("/")]] * clients, requests)


def _burst(web: Server, asks: Sequence[Sequence[Ask]], requests: int) -> Burst:
    run_load(Load(web.port, asks, min(requests, WARM_UP)))
    before = read_cpu_s(web.pid)
    answers = run_load(Load(web.port, asks, requests))
    cpu_s = read_cpu_s(web.pid) - before
    done = len(answers.latencies_s)
    p50_ms, p99_ms = answers.percentile_ms(50), answers.percentile_ms(99)
    return Burst(answers.per_s, p50_ms, p99_ms, cpu_s / done * 1e6)
