"""POST /generate from 32 clients: how many a second one core takes, and how long the slowest wait."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from benchmarks.cpu import read_cpu_s
from benchmarks.figure import Figure, Judged, Plan, Result, Sweep
from benchmarks.load import Ask, Load, run_load
from benchmarks.service import open_box

CLIENTS = 32
POSTS = 3000
WARM_UP = 300
SWEPT = (1, 4, 16, 32, 64)
CORE_BAR = 0.9
"""Of a core: a web tier that waits for its disk or its locks uses less of it."""
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
    bursts = [post(plan, CLIENTS, posts) for _ in range(plan.rounds)]
    swept = [(clients, post(plan, clients, posts // 2)) for clients in SWEPT]
    beside = {
        "p50, ms": median(burst.p50_ms for burst in bursts),
        "processor time a POST, µs": median(burst.cpu_us for burst in bursts),
        "POSTs/s": median(burst.per_s for burst in bursts),
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
                "POSTs a second ÷ what the processor time of one allows on one core",
                "POSTs/s",
                [burst.per_s for burst in bursts],
                [1e6 / burst.cpu_us for burst in bursts],
                bar=CORE_BAR,
                at_least=True,
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
        web = box.start_web()
        run_load(Load(web.port, asks, min(posts, WARM_UP)))
        before = read_cpu_s(web.pid)
        answers = run_load(Load(web.port, asks, posts))
        cpu_s = read_cpu_s(web.pid) - before
    done = len(answers.latencies_s)
    p50_ms, p99_ms = answers.percentile_ms(50), answers.percentile_ms(99)
    return Burst(answers.per_s, p50_ms, p99_ms, cpu_s / done * 1e6)
