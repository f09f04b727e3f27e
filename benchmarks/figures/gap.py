"""The daemon between two jobs: from the last step of one to the first of the next, all of them queued before."""

from __future__ import annotations

import asyncio
from statistics import median

from benchmarks.figure import Figure, Judged, Plan, Result, take_percentile
from benchmarks.gap import WARM_UP, measure_gaps

JOBS = 30
STEP_S = 0.02
BAR_MS = 5.0
CASES = {"tiny": (64, 0), "large": (1024, 2)}


def measure(plan: Plan) -> Result:
    """Tiny pictures, and large ones with two references."""
    return Result([_measure_case(plan, name, *case) for name, case in CASES.items()])


def _measure_case(plan: Plan, name: str, side_px: int, references: int) -> Figure:
    jobs = WARM_UP + plan.count(JOBS)
    rounds = [
        asyncio.run(measure_gaps(side_px, references, jobs, STEP_S, plan.folder))[WARM_UP:] for _ in range(plan.rounds)
    ]
    beside = f" with {references} references" if references else ""
    return Figure(
        f"gap.{name}",
        f"last step of a job → first of the next, {side_px} px{beside}: p95",
        "ms",
        [take_percentile(gaps, 95) * 1000 for gaps in rounds],
        judged=Judged.VALUE,
        bar=BAR_MS,
        beside={"p50, ms": median(map(median, rounds)) * 1000, "most, ms": max(map(max, rounds)) * 1000},
    )
