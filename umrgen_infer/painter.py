"""What the daemon asks of a pipeline, without naming torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

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
    loras: tuple[tuple[str, float], ...] = ()
    """Names and strengths."""


@dataclass(frozen=True, slots=True)
class Painting:
    """A picture as the pipeline returned it, not yet to be trusted.

    `timings` are the seconds that its stages took: encode, denoise, decode. `ran_with` is what was in
    use, as the status tells it: only what JSON can say. `peak_bytes` is the most device memory that was
    taken, weights and all; 0 where nothing measures it.
    """

    image: Image.Image
    timings: Mapping[str, float]
    ran_with: Mapping[str, object] = field(default_factory=dict)
    peak_bytes: int = 0


class Painter(Protocol):
    """A loaded pipeline. Owned by one thread."""

    def paint(self, commission: Commission, on_step: OnStep, *, lean: bool = False) -> Painting:
        """Run the pipeline once; `lean` spends time to save memory.

        Raises OutOfMemory, with what it took freed; RunError for what ends the job, DeviceLost for what
        ends the process, anything else for a bug of the pipeline.
        """

    def close(self) -> None:
        """Let go of the weights. Nothing is painted afterwards."""


@runtime_checkable
class PaintsTogether(Protocol):
    """A painter that can paint several pictures in one call."""

    def find_most_together(self, width: int, height: int) -> int:
        """How many pictures of so many pixels may be painted in one call; 1 for no more. Any thread may ask."""

    def paint_together(self, commissions: Sequence[Commission], on_step: OnStep) -> Sequence[Painting]:
        """One call of the pipeline for commissions of one size and step count, without references and LoRAs.

        A painting for each, in their order. Raises as `Painter.paint` does.
        """


class OutOfMemory(Exception):
    """The device had no room for this run. What it took is free again."""


class DeviceLost(Exception):
    """The device is in a state that only a new process gets out of."""
