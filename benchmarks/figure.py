"""What one line of the suite is: measured values, the limit beside them, and the bar."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

ROUNDS = 5


class Judged(StrEnum):
    """What of a round is held against the bar."""

    RATIO = "ratio"
    """The value divided by the limit of the same round."""
    DIFFERENCE = "difference"
    """The value less the limit of the same round."""
    VALUE = "value"
    """The value itself; a limit, where there is one, is only shown."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table. `values` and `limits` hold one number a round, in `unit`."""

    name: str
    title: str
    unit: str
    values: Sequence[float]
    limits: Sequence[float] = ()
    judged: Judged = Judged.RATIO
    bar: float | None = None
    at_least: bool = False
    """The bar is a floor and not a ceiling."""
    beside: dict[str, float] = field(default_factory=dict)
    """What else was measured; each name ends in its unit."""

    @property
    def samples(self) -> list[float]:
        """What is held against the bar, one number a round."""
        if self.judged is Judged.RATIO:
            return [value / limit for value, limit in zip(self.values, self.limits, strict=True)]
        if self.judged is Judged.DIFFERENCE:
            return [value - limit for value, limit in zip(self.values, self.limits, strict=True)]
        return list(self.values)

    @property
    def median(self) -> float:
        """Of the rounds."""
        return statistics.median(self.samples)

    @property
    def ok(self) -> bool | None:
        """Whether the bar is met; None without a bar."""
        if self.bar is None:
            return None
        return self.median >= self.bar if self.at_least else self.median <= self.bar

    def as_json(self) -> dict[str, Any]:
        """Everything that was measured and what follows from it."""
        samples = self.samples
        summary = {"median": self.median, "lowest": min(samples), "highest": max(samples), "ok": self.ok}
        return {**asdict(self), "judged": self.judged.value, "samples": samples, **summary}


@dataclass(frozen=True, slots=True)
class Sweep:
    """One figure over a range: lines of points, drawn as a plot."""

    name: str
    title: str
    across: str
    up: str
    lines: Mapping[str, Sequence[tuple[float, float]]]
    logarithmic: bool = False
    """Of the axis across."""


@dataclass(frozen=True, slots=True)
class Result:
    """What one measurement brought."""

    figures: Sequence[Figure]
    sweeps: Sequence[Sweep] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured, and where on the disk."""

    folder: Path
    rounds: int = ROUNDS
    scale: float = 1.0
    """Counts and times are multiplied by it."""

    def count(self, full: int, least: int = 10) -> int:
        """So many operations."""
        return max(least, round(full * self.scale))

    def seconds(self, full: float, least: float = 0.2) -> float:
        """So long."""
        return max(least, full * self.scale)


Measure = Callable[[Plan], Result]


def take_percentile(values: Sequence[float], percent: float) -> float:
    """The least value that `percent` of them, between 0 and 100, do not exceed: one that was measured."""
    ordered = sorted(values)
    rank = math.ceil(round(len(ordered) * percent / 100, 6))  # 99.9 % of 1000 is 999, and not a hair more
    return ordered[max(0, rank - 1)]
