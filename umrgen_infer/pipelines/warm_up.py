"""Painting once at start: what does not work is found before a job is claimed, and no job waits for it later."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from PIL import Image

from umrgen_core.errors import ConfigError, RunError
from umrgen_core.profiles import MIN_SIDE_PX, ModelProfile, RenderSize
from umrgen_infer.painter import Commission, Painter, Painting
from umrgen_infer.reference_fit import choose_fit

WARM_UP_STEPS = 2
"""The first step with references is another graph than the others, where they are read once."""
MOST_COUNTS = 3
"""None, one, two: beyond that only the length of a sequence grows."""
GREY = (128, 128, 128)
PIPELINE_ERRORS = (TypeError, ValueError, RuntimeError, AttributeError, LookupError, AssertionError, RunError)
"""What a pipeline raises that was asked for what it cannot do."""


def warm_up(name: str, profile: ModelProfile, painter: Painter) -> None:
    """Paint a small picture with the fewest references, then the profile's sizes with each count of them.

    Raises ConfigError that says what the pipeline could not do.
    """
    small = profile.render_size(MIN_SIDE_PX, MIN_SIDE_PX + 1)
    paint_grey(name, profile, painter, small, profile.min_references)
    for size, count in itertools.product(list_sizes(profile), list_counts(profile)):
        paint_grey(name, profile, painter, size, count)


def list_sizes(profile: ModelProfile) -> Iterator[RenderSize]:
    """The profile's own sizes, as they are painted."""
    for size in profile.warm_up:
        width, _, height = size.partition("x")
        yield profile.render_size(int(width), int(height))


def list_counts(profile: ModelProfile) -> list[int]:
    """How many references are tried."""
    return list(range(profile.min_references, profile.references + 1))[:MOST_COUNTS]


def paint_grey(name: str, profile: ModelProfile, painter: Painter, size: RenderSize, references: int) -> Painting:
    """Paint once, from grey references. Raises ConfigError when that fails or the size is not what was asked for."""
    painting = paint_trial(name, painter, build_trial(profile, size, references))
    if painting.image.size != (size.width, size.height):
        got = "x".join(str(side) for side in painting.image.size)
        raise ConfigError(
            f"[models.{name}] multiple_px: asked for {size.width}x{size.height}, {profile.pipeline} paints {got}; "
            "its sides are multiples of something else"
        )
    return painting


def build_trial(
    profile: ModelProfile,
    size: RenderSize,
    references: int = 0,
    *,
    prompt: str = "warm-up",
    negative: str = "",
    colour: tuple[int, int, int] = GREY,
    steps: int = WARM_UP_STEPS,
) -> Commission:
    """A commission with plain references, in few steps unless they are named."""
    steps = min(max(steps, profile.min_steps), profile.max_steps)
    picture = choose_fit(profile, size).fit(Image.new("RGB", (size.width, size.height), colour))
    return Commission(prompt, negative, size.width, size.height, steps, 0, (picture,) * references)


def paint_trial(name: str, painter: Painter, commission: Commission) -> Painting:
    """Paint. Raises ConfigError in place of what a pipeline raises that cannot be called this way."""
    try:
        return painter.paint(commission, lambda _: None)
    except PIPELINE_ERRORS as error:
        what = f"{commission.width}x{commission.height} with {len(commission.references)} references"
        raise ConfigError(
            f"[models.{name}]: the pipeline cannot paint {what}: {type(error).__name__}: {error}"
        ) from error
