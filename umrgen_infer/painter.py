"""What the daemon asks of a pipeline, without naming torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

OnStep = Callable[[int], None]
"""Called in the pipeline's thread after each denoising step with the number of steps done.

What it raises ends the run and comes out of `paint` unchanged.
"""


@dataclass(frozen=True, slots=True)
class Commission:
    """One picture to paint. Sizes in pixels, already ones that the model can paint."""

    prompt: str
    negative: str
    width: int
    height: int
    steps: int
    seed: int
    references: tuple[Image.Image, ...]


@dataclass(frozen=True, slots=True)
class Painting:
    """A picture as the pipeline returned it, not yet to be trusted.

    `timings` are the seconds that its stages took: encode, denoise, decode.
    """

    image: Image.Image
    timings: Mapping[str, float]


class Painter(Protocol):
    """A loaded pipeline. Owned by one thread."""

    def paint(self, commission: Commission, on_step: OnStep) -> Painting:
        """Run the pipeline once.

        Raises RunError for what ends the job, DeviceLost for what ends the process, anything else
        for a bug of the pipeline.
        """


class DeviceLost(Exception):
    """The device is in a state that only a new process gets out of."""
