"""Which runs are taken to last as long as each other: the same model, steps and references, and about the same area.

Agents choose all of these, so what is remembered is bounded: 64 areas, 50 steps, 17 counts of references.
"""

from __future__ import annotations

import math

from umrgen_core.jobs import Job

SIDE_STEP_PX = 32


def run_time_key(model: str, width: int, height: int, steps: int, reference_count: int) -> dict[str, str | int]:
    """The row of `run_times` for such runs: its sides are those of a square of the same area, rounded."""
    side = max(round(math.sqrt(width * height) / SIDE_STEP_PX), 1) * SIDE_STEP_PX
    return {"model": model, "width": side, "height": side, "steps": steps, "reference_count": reference_count}


def run_time_key_of(job: Job) -> dict[str, str | int]:
    """The row for runs like this job's."""
    return run_time_key(job.model, job.width, job.height, job.steps, len(job.reference_names))


def total_key(model: str) -> dict[str, str | int]:
    """The row over all runs of a model."""
    return {"model": model, "width": 0, "height": 0, "steps": 0, "reference_count": 0}
