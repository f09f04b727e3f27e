"""Putting jobs on disk: many callers at once, and one alone, without HTTP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from statistics import median
from unittest.mock import patch

from benchmarks.figure import Figure, Plan, Result, Sweep, take_percentile
from benchmarks.made_jobs import JobMaker, make_maker
from benchmarks.rounds import alternate_async
from benchmarks.service import Box, open_box
from benchmarks.stores import clear_jobs
from benchmarks.yardstick import DurableHop
from umrgen_core.clock import SystemClock
from umrgen_core.database import open_database

CALLERS = 32
JOBS = 1500
LONE_JOBS = 200
SWEPT = (1, 2, 4, 8, 16, 32, 64)
GROUPED_BAR, LONE_BAR = 4.0, 2.0


@dataclass(frozen=True, slots=True)
class Rate:
    """Of so many callers."""

    per_s: float
    p50_ms: float
    p99_ms: float
    cpu_us: float


def measure(plan: Plan) -> Result:
    """Grouped against one transaction each; a lone caller against one fdatasync behind a thread hop."""
    with open_box(plan.folder) as box:
        return asyncio.run(_measure(plan, box))


async def _measure(plan: Plan, box: Box) -> Result:
    async with _opened(box) as makers:
        grouped = await _measure_grouped(plan, box, makers)
        sweep = await _sweep(plan, box, makers)
        lone = await _measure_lone(plan, box, makers[0])
    return Result([grouped, *lone], [sweep])


@asynccontextmanager
async def _opened(box: Box) -> AsyncIterator[list[JobMaker]]:
    """An agent for every caller: one agent's jobs are counted at each of its enqueues."""
    keys = await asyncio.to_thread(box.make_keys, max(SWEPT))
    async with open_database(box.settings, SystemClock()) as database:
        yield [await make_maker(box.settings, database, key) for key in keys]


async def _measure_grouped(plan: Plan, box: Box, makers: Sequence[JobMaker]) -> Figure:
    jobs = plan.count(JOBS, 2 * CALLERS)

    async def one_each() -> Rate:
        with one_transaction_each():
            return await enqueue(box, makers[:CALLERS], jobs)

    ways: dict[str, Callable[[], Awaitable[Rate]]] = {
        "grouped": lambda: enqueue(box, makers[:CALLERS], jobs),
        "one each": one_each,
    }
    taken = await alternate_async(plan.rounds, ways)
    return Figure(
        "enqueue_store.grouped",
        f"{CALLERS} callers enqueue, durable: jobs a second ÷ with one transaction for each job",
        "jobs/s",
        [rate.per_s for rate in taken["grouped"]],
        [rate.per_s for rate in taken["one each"]],
        bar=GROUPED_BAR,
        at_least=True,
        beside={
            "p50, ms": median(rate.p50_ms for rate in taken["grouped"]),
            "p99, ms": median(rate.p99_ms for rate in taken["grouped"]),
            "processor time a job, µs": median(rate.cpu_us for rate in taken["grouped"]),
            "one each: processor time a job, µs": median(rate.cpu_us for rate in taken["one each"]),
        },
    )


async def _sweep(plan: Plan, box: Box, makers: Sequence[JobMaker]) -> Sweep:
    points = [(callers, await enqueue(box, makers[:callers], plan.count(JOBS // 2, callers))) for callers in SWEPT]
    return Sweep(
        "enqueue_callers",
        "Jobs put on disk a second, by callers at once",
        "callers",
        "jobs/s",
        {"jobs/s": [(callers, rate.per_s) for callers, rate in points]},
        logarithmic=True,
    )


async def _measure_lone(plan: Plan, box: Box, maker: JobMaker) -> list[Figure]:
    jobs = plan.count(LONE_JOBS)
    own: list[list[float]] = []
    hops: list[list[float]] = []
    with DurableHop(box.data_dir) as hop:
        for _ in range(plan.rounds + 1):
            own.append([])
            hops.append([])
            for _ in range(jobs):  # one by one in turn: both see the disk as it is at that moment
                own[-1].append(await _time(maker.queue))
                hops[-1].append(await _time(hop.run))
            clear_jobs(box)
    return [
        Figure(
            "enqueue_store.lone",
            "a lone caller enqueues: p50 ÷ that of one fdatasync behind a thread hop",
            "ms",
            [median(times) * 1000 for times in own[1:]],
            [median(times) * 1000 for times in hops[1:]],
            bar=LONE_BAR,
            beside={
                "p99, ms": median(take_percentile(times, 99) for times in own[1:]) * 1000,
                "fdatasync and hop p99, ms": median(take_percentile(times, 99) for times in hops[1:]) * 1000,
            },
        )
    ]


async def _time(work: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await work()
    return time.perf_counter() - began


@contextmanager
def one_transaction_each() -> Iterator[None]:
    """The writer as it would be without groups: each item has a transaction, and a sync, of its own."""
    with patch("umrgen_core.writer.MAX_BATCH", 1):
        yield


async def enqueue(box: Box, makers: Sequence[JobMaker], jobs: int) -> Rate:
    """Let as many callers put `jobs` jobs on disk, into an empty queue."""
    latencies: list[float] = []

    async def call(maker: JobMaker) -> None:
        for _ in range(max(1, jobs // len(makers))):
            latencies.append(await _time(maker.queue))  # noqa: PERF401 - each when it comes

    began, cpu_began = time.perf_counter(), time.process_time()
    await asyncio.gather(*(call(maker) for maker in makers))
    took_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu_began
    clear_jobs(box)
    done = len(latencies)
    p50_ms, p99_ms = (take_percentile(latencies, percent) * 1000 for percent in (50, 99))
    return Rate(done / took_s, p50_ms, p99_ms, cpu_s / done * 1e6)
