"""Reading a status through every middleware, beside an aiohttp hello-world under the same clients."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.cpu import read_cpu_s
from benchmarks.figure import Figure, Judged, Plan, Result, Sweep
from benchmarks.load import Ask, Load, run_load
from benchmarks.made_jobs import make_maker
from benchmarks.rounds import alternate
from benchmarks.service import Box, Server, open_box, running_yardstick
from benchmarks.stores import FilledStore, open_store
from umrgen_core.clock import SystemClock
from umrgen_core.database import open_database

READS = 4000
CLIENTS = 4
SWEPT = (1, 2, 4, 8, 16, 32, 64)
CPU_BAR = 2.5
SIZE_BAR = 1.10
JOBS = 1000
SMALL, LARGE = 1_000, 1_000_000


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one request: processor time of the server, and what a client waits."""

    cpu_us: float
    wall_us: float
    per_s: float


def cost_of(server: Server, asks: Sequence[Ask], count: int, clients: int = CLIENTS) -> Cost:
    """Send `count` requests and see what each cost."""
    before = read_cpu_s(server.pid)
    answers = run_load(Load(server.port, [asks] * clients, count))
    cpu_us = (read_cpu_s(server.pid) - before) / len(answers.latencies_s) * 1e6
    return Cost(cpu_us, answers.percentile_ms(50) * 1000, answers.per_s)


def measure(plan: Plan) -> Result:
    """The processor time of a read, and whether a store of a million jobs makes it dearer."""
    against_hello, sweep = _measure_against_hello(plan)
    return Result([*against_hello, *_measure_sizes(plan)], [sweep])


def _measure_against_hello(plan: Plan) -> tuple[list[Figure], Sweep]:
    count = plan.count(READS, 100)
    with open_box(plan.folder) as box, running_yardstick(box.data_dir.parent) as hello:
        key, jobs = _make_jobs(box)
        web = box.start_web()
        ways = {"hello": lambda: cost_of(hello, [Ask("/")], count)}
        for state, job_id in jobs.items():
            asks = [Ask(f"/api/v1/status/{job_id}", key=key)]
            ways[state] = lambda asks=asks: cost_of(web, asks, count)  # type: ignore[misc]
        costs = alternate(plan.rounds, ways)
        sweep = _sweep(web, [Ask(f"/api/v1/status/{jobs['completed']}", key=key)], hello, count // 2)
    hello_us = [cost.cpu_us for cost in costs.pop("hello")]
    return [_against_hello(state, taken, hello_us) for state, taken in costs.items()], sweep


def _sweep(web: Server, asks: Sequence[Ask], hello: Server, count: int) -> Sweep:
    """Requests that come together share a hop to the reader's thread, and rounds of the event loop."""
    lines: dict[str, list[tuple[float, float]]] = {"a completed job": [], "hello-world": []}
    for clients in SWEPT:
        lines["a completed job"].append((clients, cost_of(web, asks, count, clients).cpu_us))
        lines["hello-world"].append((clients, cost_of(hello, [Ask("/")], count, clients).cpu_us))
    title = "Status: processor time of a request, by clients at once"
    return Sweep("status_clients", title, "clients", "µs", lines, logarithmic=True)


def _against_hello(state: str, costs: Sequence[Cost], hello_us: Sequence[float]) -> Figure:
    return Figure(
        f"status_read.{state}",
        f"status of a {state} job: processor time ÷ hello-world's",
        "µs",
        [cost.cpu_us for cost in costs],
        hello_us,
        bar=CPU_BAR,
        beside={
            "client's wait p50, µs": median(cost.wall_us for cost in costs),
            "requests/s": median(cost.per_s for cost in costs),
        },
    )


def _make_jobs(box: Box) -> tuple[str, dict[str, str]]:
    """A key, and a job of its agent in each state that is read most."""
    key = box.make_keys(1)[0]

    async def make() -> dict[str, str]:
        async with open_database(box.settings, SystemClock()) as database:
            maker = await make_maker(box.settings, database, key)
            completed = await maker.queue()
            await maker.complete(await maker.claim(), b"not a picture")
            running = await maker.queue()
            await maker.claim()
            return {"completed": completed, "running": running, "queued": await maker.queue()}

    # A lease that outlives the measurement: no worker renews it.
    jobs = box.settings.jobs.model_copy(update={"lease_s": 86_400})
    box.settings = box.settings.model_copy(update={"jobs": jobs})
    return key, asyncio.run(make())


def _measure_sizes(plan: Plan) -> list[Figure]:
    count, large = plan.count(READS, 100), plan.count(LARGE, 10 * SMALL)
    with open_store(plan.folder, SMALL) as few, open_store(plan.folder, large) as many:
        ways = {str(store.box.data_dir): _read_at_random(store, count) for store in (few, many)}
        small, big = alternate(plan.rounds, ways).values()
    return [
        Figure(
            "status_read.size",
            f"status of a completed job among {large:,} ÷ among {SMALL:,}: processor time",
            "µs",
            [cost.cpu_us for cost in big],
            [cost.cpu_us for cost in small],
            Judged.RATIO,
            SIZE_BAR,
            beside={
                f"client's wait p50 among {large:,}, µs": median(cost.wall_us for cost in big),
                f"client's wait p50 among {SMALL:,}, µs": median(cost.wall_us for cost in small),
            },
        )
    ]


def _read_at_random(store: FilledStore, count: int) -> Callable[[], Cost]:
    """Start a web tier over a store; what reads jobs from all over it."""
    asks = [Ask(f"/api/v1/status/{job_id}", key=store.keys[0]) for job_id in store.list_own_completed(JOBS)]
    web = store.box.start_web()
    return lambda: cost_of(web, asks, count)
