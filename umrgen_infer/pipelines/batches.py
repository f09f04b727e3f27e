"""Whether several pictures painted in one call are the same and come sooner: tried at start, never taken on trust."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from PIL import Image

from umrgen_core.logs import get_logger
from umrgen_core.profiles import ModelProfile, RenderSize
from umrgen_infer.painter import Commission, OutOfMemory, Painter, Painting, PaintsTogether
from umrgen_infer.pipelines.warm_up import PIPELINE_ERRORS, build_trial, list_sizes

LOG = get_logger("batches")
LARGEST_AREA_PX = 512 * 512
"""Above this a step keeps the device busy with one picture alone, and nothing is gained."""
SMALLEST_GAIN = 1.1
"""Pictures a second over those painted one by one; less is not worth what a batch costs each job in waiting."""
ROUNDS = 3
FARTHEST = 2.0
"""Mean difference, of 255, that the other order of sums in a batch may make."""


@dataclass(frozen=True, slots=True)
class BatchTrial:
    """What was found at one size: the most pictures in one call, 1 for no more, and how much faster they come."""

    size: RenderSize
    most: int
    gain: float

    @property
    def area_px(self) -> int:
        """Pixels of a picture. What is true of them is true of fewer, which keep the device less busy."""
        return _count_pixels(self.size)


class Trialled(Painter, PaintsTogether, Protocol):
    """A painter that can be tried."""


def try_batches(
    name: str, profile: ModelProfile, painter: Trialled, now: Callable[[], float] = time.perf_counter
) -> tuple[BatchTrial, ...]:
    """Try the profile's batch at its small sizes, the smallest first. Raises DeviceLost."""
    if profile.batch == 1 or profile.min_references:
        return ()
    trials = tuple(_try_size(profile, painter, size, now) for size in _list_small_sizes(profile))
    for trial in trials:
        size = f"{trial.size.width}x{trial.size.height}"
        LOG.info("batch_tried", model=name, size=size, batch=trial.most, gain=round(trial.gain, 3))
    return trials


def _list_small_sizes(profile: ModelProfile) -> list[RenderSize]:
    sizes = {(size.width, size.height): size for size in list_sizes(profile)}
    half = profile.render_size(512, 512)
    small = [size for size in sizes.values() if _count_pixels(size) <= LARGEST_AREA_PX] or [half]
    return sorted((size for size in small if _count_pixels(size) <= LARGEST_AREA_PX), key=_count_pixels)


def _count_pixels(size: RenderSize) -> int:
    return size.width * size.height


def _try_size(profile: ModelProfile, painter: Trialled, size: RenderSize, now: Callable[[], float]) -> BatchTrial:
    """Halved until it is right and faster: each try costs the start some pictures."""
    numbers = itertools.count()
    for count in _halve(profile.batch):
        try:
            gain = _measure_gain(profile, painter, size, count, numbers, now)
        except (*PIPELINE_ERRORS, OutOfMemory) as error:
            LOG.warning("batch_not_painted", batch=count, error_type=type(error).__name__)
            continue
        if gain >= SMALLEST_GAIN:
            return BatchTrial(size, count, gain)
    return BatchTrial(size, 1, 1.0)


def _halve(count: int) -> Iterator[int]:
    while count > 1:
        yield count
        count //= 2


def _measure_gain(
    profile: ModelProfile,
    painter: Trialled,
    size: RenderSize,
    count: int,
    numbers: Iterator[int],
    now: Callable[[], float],
) -> float:
    """How much faster `count` pictures come in one call; 0 where they are not the same pictures."""
    for fewer in range(2, count + 1):  # any number may come together; and a compiled model sees each for the first time
        commissions = _commission(profile, size, fewer, numbers)
        if not are_same(_paint_each(painter, commissions), painter.paint_together(commissions, _ignore)):
            LOG.warning("batch_is_wrong", batch=fewer)
            return 0.0
    gains = []
    for _ in range(ROUNDS):
        commissions = _commission(profile, size, count, numbers)
        began = now()
        _paint_each(painter, commissions)
        between = now()
        painter.paint_together([replace(one, prompt=f"{one.prompt}!") for one in commissions], _ignore)
        gains.append((between - began) / max(now() - between, 1e-9))
    return statistics.median(gains)


def _commission(profile: ModelProfile, size: RenderSize, count: int, numbers: Iterator[int]) -> list[Commission]:
    """Prompts that no cache knows yet, each longer than the one before it: padding must not show."""
    trials = (
        build_trial(profile, size, prompt=f"{next(numbers)} " + "a house by the sea " * place, steps=profile.steps)
        for place in range(count)
    )
    return [replace(trial, seed=next(numbers)) for trial in trials]


def _paint_each(painter: Trialled, commissions: Sequence[Commission]) -> list[Painting]:
    return [painter.paint(commission, _ignore) for commission in commissions]


def are_same(alone: Sequence[Painting], together: Sequence[Painting]) -> bool:
    """Whether each picture is the one that was painted alone, but for rounding, and no other could be taken for it."""
    if len(alone) != len(together):
        return False
    apart = [[_measure_distance(one.image, other.image) for other in alone] for one in together]
    own = [row[place] for place, row in enumerate(apart)]
    others = [far for place, row in enumerate(apart) for at, far in enumerate(row) if at != place]
    # Where seed and prompt change next to nothing, a batch that mixed them up would pass.
    return max(own) <= FARTHEST < min(others)


def _measure_distance(one: Image.Image, other: Image.Image) -> float:
    """Mean difference of two pictures, of 255; infinite for pictures of other sizes."""
    if one.size != other.size:
        return float("inf")
    difference = np.asarray(one, np.int16) - np.asarray(other, np.int16)
    return float(np.abs(difference).mean())


def _ignore(_: int) -> None:
    """A trial's steps are of no interest."""
