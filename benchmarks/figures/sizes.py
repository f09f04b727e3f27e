"""What the store does again and again, at a thousand, a hundred thousand and a million jobs: it must not matter."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, ExitStack
from statistics import median

from benchmarks.figure import Figure, Plan, Result, Sweep
from benchmarks.stores import AGENTS, FilledStore, add_expired, open_store
from umrgen_core.agent_store import AgentStore
from umrgen_core.agents import Agent
from umrgen_core.claim_store import ClaimStore
from umrgen_core.clock import SystemClock
from umrgen_core.database import Database, open_database
from umrgen_core.job_store import JobStore
from umrgen_core.jobs import JobState
from umrgen_core.recovery_store import RecoveryStore
from umrgen_core.retention_store import RetentionStore

SIZES = (1_000, 100_000, 1_000_000)
TIMES = 60
SWEEPS = 4
"""Rounds of the retention sweep; each deletes what it finds, which is added before."""
EXPIRED = 100
PAGE = 20
BAR = 1.5
TITLES = {
    "claim": "claim a job, durable",
    "fair_order": "the job that fair order puts next",
    "position": "position of a queued job (counted up to a hundred, which a thousand jobs do not fill)",
    "listing": f"a page of {PAGE} jobs from the middle of an agent's",
    "listing_state": f"a page of {PAGE} completed jobs",
    "retention": f"a round of the retention sweep, {EXPIRED} jobs with pictures expired",
    "retention_idle": "a round that finds nothing expired",
}


class Subject:
    """An open store of one size, and what is done with it."""

    def __init__(self, store: FilledStore, database: Database, agent: Agent) -> None:
        settings = store.box.settings
        self._store = store
        self._model = settings.default_model
        self._agent = agent
        self._claims = ClaimStore(database, settings)
        self._jobs = JobStore(database, settings)
        self._retention = RetentionStore(database)
        completed = store.list_own_completed(TIMES)
        self._cursors = completed[len(completed) // 2 :]  # even in the smallest store a whole page lies behind these

    @property
    def work(self) -> Mapping[str, Callable[[int, int], Awaitable[float]]]:
        """Each gives the median seconds of so many times; the second number makes rounds differ."""
        return {
            "claim": self._claim,
            "fair_order": lambda times, _: _time(times, lambda _: self._claims.find_waiting((self._model,))),
            "position": self._locate,
            "listing": lambda times, _: _time(times, self._list_from),
            "listing_state": lambda times, _: _time(times, self._list_completed),
            "retention": self._sweep,
            "retention_idle": lambda times, _: _time(times, lambda _: self._retention.expire()),
        }

    async def _claim(self, times: int, _: int) -> float:
        taken = []
        for _ in range(times):
            began = time.perf_counter()
            claim = await self._claims.claim_next(self._model, "benchmark")
            taken.append(time.perf_counter() - began)
            if claim is None:
                raise SystemExit("no job waits")
            await self._claims.give_back(claim)
        return median(taken)

    async def _locate(self, times: int, _: int) -> float:
        waiting = await self._claims.find_waiting((self._model,))
        if waiting is None:
            raise SystemExit("no job waits")
        return await _time(times, lambda _: self._jobs.describe(waiting.job))

    async def _list_from(self, turn: int) -> object:
        cursor = self._cursors[turn % len(self._cursors)]
        return await self._jobs.list_page(self._agent, None, PAGE, cursor)

    async def _list_completed(self, _: int) -> object:
        return await self._jobs.list_page(self._agent, JobState.COMPLETED, PAGE, None)

    async def _sweep(self, times: int, round_number: int) -> float:
        taken = []
        for turn in range(min(times, SWEEPS)):
            await asyncio.to_thread(add_expired, self._store.box, EXPIRED, f"{round_number}-{turn}")
            began = time.perf_counter()
            doomed = await self._retention.expire()
            taken.append(time.perf_counter() - began)
            if len(doomed) != EXPIRED:
                raise SystemExit(f"the sweep found {len(doomed)} of {EXPIRED} pictures")
        return median(taken)


async def _time(times: int, work: Callable[[int], Awaitable[object]]) -> float:
    taken = []
    for turn in range(times):
        began = time.perf_counter()
        await work(turn)
        taken.append(time.perf_counter() - began)
    return median(taken)


def measure(plan: Plan) -> Result:
    """Every kind of work at every size, round by round."""
    sizes = sorted({SIZES[0], *(plan.count(size, SIZES[0]) for size in SIZES[1:])})
    with ExitStack() as stores:
        opened = {size: stores.enter_context(open_store(plan.folder, size)) for size in sizes}
        taken = asyncio.run(_measure(plan, opened))
    ends = sizes[0], sizes[-1]
    figures = [
        Figure(
            f"sizes.{kind}",
            f"{title}: among {ends[1]:,} jobs ÷ among {ends[0]:,}",
            "ms",
            [seconds * 1000 for seconds in taken[ends[1]][kind]],
            [seconds * 1000 for seconds in taken[ends[0]][kind]],
            bar=None if kind == "position" else BAR,
            beside={f"among {size:,}, ms": median(taken[size][kind]) * 1000 for size in sizes[1:-1]},
        )
        for kind, title in TITLES.items()
    ]
    lines = {kind: [(size, median(taken[size][kind]) * 1000) for size in sizes] for kind in TITLES}
    return Result(
        figures, [Sweep("store_sizes", "Work of the store, by jobs in it", "jobs", "ms", lines, logarithmic=True)]
    )


async def _measure(plan: Plan, stores: Mapping[int, FilledStore]) -> dict[int, dict[str, list[float]]]:
    times = plan.count(TIMES, 5)
    taken: dict[int, dict[str, list[float]]] = {size: {kind: [] for kind in TITLES} for size in stores}
    async with AsyncExitStack() as stack:
        subjects = {size: await _open(store, stack) for size, store in stores.items()}
        for round_number in range(plan.rounds + 1):
            for kind in TITLES:
                for size, subject in subjects.items():
                    seconds = await subject.work[kind](times, round_number)
                    if round_number:
                        taken[size][kind].append(seconds)
    return taken


async def _open(store: FilledStore, stack: AsyncExitStack) -> Subject:
    settings = store.box.settings
    database = await stack.enter_async_context(open_database(settings, SystemClock()))
    await database.integrity.wait()
    await RecoveryStore(database, settings).adopt_queue()
    agent = await AgentStore(database, settings.limits).find_by_key(store.keys[0])
    if agent is None or len(store.keys) != AGENTS:
        raise SystemExit(f"{store.box.data_dir} is not whole: delete it, and it is made again")
    return Subject(store, database, agent)
