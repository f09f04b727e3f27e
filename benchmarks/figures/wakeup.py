"""From the commit of a job to its claim by an idle daemon, and what waiting for that costs: the idle processes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from statistics import median

from benchmarks.cpu import read_cpu_s
from benchmarks.figure import Figure, Judged, Plan, Result, take_percentile
from benchmarks.made_jobs import JobMaker, make_maker
from benchmarks.service import NULL_DAEMON, Box, open_box, running_yardstick
from umrgen_core.clock import SystemClock
from umrgen_core.database import open_database
from umrgen_core.names import new_process_id
from umrgen_core.wakeup import Listener, Wakeup

JOBS = 100
PAUSE_S = 0.02
ANSWER_S = 20.0
P50_BAR_MS, P99_BAR_MS = 1.0, 10.0
IDLE_S = 6.0
SETTLE_S = 3.0
IDLE_BAR_PERCENT = 0.3


def measure(plan: Plan) -> Result:
    """Both halves."""
    return Result([*measure_claims(plan), *measure_idle(plan)])


def measure_claims(plan: Plan) -> list[Figure]:
    """Here jobs are committed and the hint sent, as by the web tier, and heard when each is claimed."""
    with open_box(plan.folder) as box:
        key = box.make_keys(1)[0]
        pid, jobs = box.start_daemon(NULL_DAEMON).process.pid, plan.count(JOBS)
        before = read_cpu_s(pid)
        rounds = asyncio.run(_measure_claims(box, key, plan.rounds, jobs))
        cpu_ms = (read_cpu_s(pid) - before) / (plan.rounds * jobs) * 1000
    heard = [[seconds for seconds, _ in taken] for taken in rounds]
    began = [[seconds for _, seconds in taken] for taken in rounds]
    beside = {
        "to the beginning of the claim's transaction p50, ms": median(map(median, began)) * 1000,
        "daemon: processor time of a whole job, idling included, ms": cpu_ms,
    }
    return [
        Figure(
            "claim.p50",
            "commit of a job → its claim is on disk and said so: p50",
            "ms",
            [median(times) * 1000 for times in heard],
            judged=Judged.VALUE,
            bar=P50_BAR_MS,
            beside=beside,
        ),
        Figure(
            "claim.p99",
            "the same: p99",
            "ms",
            [take_percentile(times, 99) * 1000 for times in heard],
            judged=Judged.VALUE,
            bar=P99_BAR_MS,
        ),
    ]


class _Ear:
    """Hears the daemon's hints to the web tier: the claim of a job, later its end."""

    def __init__(self, box: Box) -> None:
        self._wakeup = Wakeup(box.data_dir, Listener.API, new_process_id())
        self._wakeup.listen(lambda job_id: self.heard.put_nowait((job_id, time.perf_counter())))
        self.heard: asyncio.Queue[tuple[str, float]] = asyncio.Queue()

    def wake_daemon(self) -> None:
        self._wakeup.send(Listener.INFER, "queued")

    async def hear(self, job_id: str) -> float:
        async with asyncio.timeout(ANSWER_S):
            while True:
                said, at = await self.heard.get()
                if said == job_id:
                    return at

    def close(self) -> None:
        self._wakeup.close()


async def _measure_claims(box: Box, key: str, rounds: int, jobs: int) -> list[list[tuple[float, float]]]:
    async with open_database(box.settings, SystemClock()) as database:
        maker, ear = await make_maker(box.settings, database, key), _Ear(box)
        try:
            await _claim_one(maker, ear)
            return [[await _claim_one(maker, ear) for _ in range(jobs)] for _ in range(rounds)]
        finally:
            ear.close()


async def _claim_one(maker: JobMaker, ear: _Ear) -> tuple[float, float]:
    """Seconds until the claim was heard of, and until its transaction began, by the wall clock."""
    job_id = await maker.queue()
    committed, committed_us = time.perf_counter(), time.time_ns() // 1000
    ear.wake_daemon()
    claimed = await ear.hear(job_id)
    job = await maker.find(job_id)
    while not job.state.ended:
        await asyncio.sleep(PAUSE_S)
        job = await maker.find(job_id)
    await asyncio.sleep(PAUSE_S)  # until the daemon waits again
    return claimed - committed, ((job.started_at_us or committed_us) - committed_us) / 1e6


def measure_idle(plan: Plan) -> list[Figure]:
    """Web tier and daemon with a model loaded, nothing to do; an idle aiohttp server beside them."""
    with open_box(plan.folder) as box, running_yardstick(box.data_dir.parent) as hello:
        processes = {"web tier": box.start_web().pid, "daemon": box.start_daemon().process.pid, "hello": hello.pid}
        time.sleep(plan.seconds(SETTLE_S))
        shares = [_watch(list(processes.values()), plan.seconds(IDLE_S)) for _ in range(plan.rounds)]
    percent = {name: [share[place] for share in shares] for place, name in enumerate(processes)}
    hello_percent = percent.pop("hello")
    return [
        Figure(
            f"idle.{name.replace(' ', '_')}",
            f"idle {name}: processor time",
            "% of a core",
            taken,
            hello_percent,
            Judged.VALUE,
            IDLE_BAR_PERCENT,
        )
        for name, taken in percent.items()
    ]


def _watch(pids: Sequence[int], seconds: float) -> list[float]:
    """Percent of a core that each of the processes used meanwhile."""
    before, began = [read_cpu_s(pid) for pid in pids], time.perf_counter()
    time.sleep(seconds)
    lasted_s = time.perf_counter() - began
    return [(read_cpu_s(pid) - spent) / lasted_s * 100 for pid, spent in zip(pids, before, strict=True)]
