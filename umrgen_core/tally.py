"""What became of the jobs of a period: outcomes, times and throughput, by model and agent.

Every job is counted, in slices of the primary key: no read lasts long enough to keep the log from being written back.
The times are those of an even sample, since percentiles need every value at hand.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from umrgen_core.jobs import JobState
from umrgen_core.reader import Reader

SLICE = 20_000
MOST_SAMPLED = 20_000
HOUR_US = 3_600_000_000
STAGES = ("queued", "load_model", "load_references", "encode", "denoise", "decode", "check", "save", "total")
"""Of a job's timings, in their order; others follow behind."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Seconds that a stage took: half of the jobs no longer than `p50_s`, all but one in twenty `p95_s`."""

    jobs: int
    p50_s: float
    p95_s: float


@dataclass(slots=True)
class Tally:
    """The counts. `per_hour` are completed jobs by the hour since 1970 in which they ended."""

    since_us: int
    until_us: int
    jobs: int = 0
    states: Counter[JobState] = field(default_factory=Counter)
    models: dict[str, Counter[JobState]] = field(default_factory=lambda: defaultdict(Counter))
    agents: dict[str, Counter[JobState]] = field(default_factory=lambda: defaultdict(Counter))
    failures: Counter[str] = field(default_factory=Counter)
    per_hour: Counter[int] = field(default_factory=Counter)
    stages: dict[str, dict[str, Spread]] = field(default_factory=dict)
    """By model, then by stage."""
    sampled: int = 0
    every: int = 1
    """The times are those of one job in so many."""
    oldest_us: int | None = None
    """When the oldest job that is kept was accepted, be it in the period or not."""

    @property
    def success(self) -> float | None:
        """The share of completed jobs among those that completed or failed; None where there is neither."""
        decided = self.states[JobState.COMPLETED] + self.states[JobState.FAILED]
        return self.states[JobState.COMPLETED] / decided if decided else None


class Counting:
    """Counts through a process's reader."""

    def __init__(self, reader: Reader, statements: Any) -> None:
        self._reader = reader
        self._sql = statements

    async def count(self, since_us: int, until_us: int) -> Tally:
        """The jobs accepted since `since_us`. Raises Unavailable when the store cannot be read."""
        tally = Tally(since_us, until_us)
        bounds = await self._reader.one(self._sql.tally_bounds.sql)
        if bounds is None or bounds["first"] is None:
            return tally
        oldest = await self._reader.one(self._sql.tally_next.sql, seq=bounds["first"])
        tally.oldest_us = None if oldest is None else oldest["created_at_us"]
        first, last = await self._find_first(since_us, bounds["first"], bounds["last"]), bounds["last"]
        tally.every = max(math.ceil((last - first + 1) / MOST_SAMPLED), 1)
        names = {row["id"]: row["name"] for row in await self._reader.all(self._sql.tally_agents.sql)}
        samples: dict[str, list[dict[str, float]]] = defaultdict(list)
        for start in range(first, last + 1, SLICE):
            end = min(start + SLICE - 1, last)
            await self._count_slice(tally, names, start, end)
            rows = await self._reader.all(self._sql.tally_timings.sql, first=start, last=end, every=tally.every)
            for row in rows:
                samples[row["model"]].append(json.loads(row["timings"]))
        tally.sampled = sum(map(len, samples.values()))
        tally.stages = {model: spread_stages(timings) for model, timings in samples.items()}
        return tally

    async def _count_slice(self, tally: Tally, names: dict[int, str], first: int, last: int) -> None:
        for row in await self._reader.all(self._sql.tally_slice.sql, first=first, last=last, hour_us=HOUR_US):
            state, jobs = JobState(row["state"]), row["jobs"]
            tally.jobs += jobs
            tally.states[state] += jobs
            tally.models[row["model"]][state] += jobs
            tally.agents[names.get(row["agent_id"], "?")][state] += jobs
            if row["error_code"] is not None:
                tally.failures[row["error_code"]] += jobs
            if state is JobState.COMPLETED:
                tally.per_hour[row["hour"]] += jobs

    async def _find_first(self, since_us: int, low: int, high: int) -> int:
        """The first job of the period: jobs are numbered in the order in which they were accepted."""
        while low < high:
            middle = (low + high) // 2
            row = await self._reader.one(self._sql.tally_next.sql, seq=middle)
            if row is None or row["created_at_us"] >= since_us:
                high = middle
            else:
                low = row["seq"] + 1
        row = await self._reader.one(self._sql.tally_next.sql, seq=low)
        return low if row is not None and row["created_at_us"] >= since_us else low + 1


def spread_stages(timings: Sequence[dict[str, float]]) -> dict[str, Spread]:
    """The spread of each stage over the jobs that had it."""
    values: dict[str, list[float]] = defaultdict(list)
    for one in timings:
        for stage, seconds in one.items():
            values[stage].append(seconds)
    known = [stage for stage in STAGES if stage in values]
    others = sorted(values.keys() - set(STAGES))
    return {stage: _spread(sorted(values[stage])) for stage in (*known, *others)}


def _spread(ordered: list[float]) -> Spread:
    return Spread(len(ordered), _pick(ordered, 0.5), _pick(ordered, 0.95))


def _pick(ordered: list[float], share: float) -> float:
    """The nearest-rank percentile."""
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]
