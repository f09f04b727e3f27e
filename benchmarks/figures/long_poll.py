"""From the commit that completes a job to the answer of the client who waited for it, among 800 who wait."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.figure import Figure, Judged, Plan, Result, Sweep, take_percentile
from benchmarks.service import make_agents
from benchmarks.waiting import MOST_OF_AN_AGENT, SETTLE_S, Crowd, Worker, complete_one, start_web_tier
from umrgen_core.accounts import Accounts
from umrgen_core.clock import SystemClock
from umrgen_core.database import open_database

WAITERS = 800
COMPLETIONS = 40
SWEPT = (1, 100)
P50_BAR_MS = 2.0


def measure(plan: Plan) -> Result:
    """Rounds with all waiters, and a few with fewer."""
    waiters, jobs = plan.count(WAITERS), plan.count(COMPLETIONS)
    rounds = asyncio.run(wait_in_rounds(plan.folder, waiters, plan.rounds, jobs))
    swept = [(count, asyncio.run(wait_in_rounds(plan.folder, count, 1, jobs))[0]) for count in SWEPT]
    swept.append((waiters, rounds[0]))
    figure = Figure(
        "long_poll",
        f"completing commit → long-poll answered, {waiters} waiting: p50",
        "ms",
        [median(times) * 1000 for times in rounds],
        judged=Judged.VALUE,
        bar=P50_BAR_MS,
        beside={"p99, ms": median(take_percentile(times, 99) for times in rounds) * 1000},
    )
    lines = {
        "p50": [(count, median(times) * 1000) for count, times in swept],
        "p99": [(count, take_percentile(times, 99) * 1000) for count, times in swept],
    }
    title = "Completing commit → long-poll answered, by requests that wait"
    return Result([figure], [Sweep("waiters", title, "waiting", "ms", lines, logarithmic=True)])


async def wait_in_rounds(folder: Path, waiters: int, rounds: int, jobs: int) -> list[list[float]]:
    """Seconds of each completion, round by round."""
    with TemporaryDirectory(dir=folder) as place, ExitStack() as exits:
        settings, port, _ = start_web_tier(Path(place) / "data", exits)
        async with open_database(settings, SystemClock()) as database:
            worker = Worker(settings, database)
            keys = await make_agents(Accounts(database), -(-waiters // MOST_OF_AN_AGENT))
            crowd = Crowd(port, keys, "long-poll")
            for _ in range(waiters):
                await crowd.join()
            await asyncio.sleep(SETTLE_S)  # until the last of them waits too
            await complete_one(worker, crowd)
            taken = [[await complete_one(worker, crowd) for _ in range(jobs)] for _ in range(rounds)]
            await crowd.disperse()
            worker.close()
    return taken
