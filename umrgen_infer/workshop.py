"""What every run of a daemon shares."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from umrgen_core.claim_store import ClaimStore, Waiting
from umrgen_core.clock import Clock
from umrgen_core.config import Settings
from umrgen_core.files import FileStore
from umrgen_core.jobs import Pin
from umrgen_core.meter import QUIET, Meter
from umrgen_core.profiles import ModelProfile, RenderSize
from umrgen_core.tracing import Tracer
from umrgen_infer.output_check import OutputCheck
from umrgen_infer.residency import Residency

Tell = Callable[[str], None]
"""Hints the web tier that the job of this id has changed."""
Beat = Callable[[], None]
"""A sign of life, given by the idle loop and by each step: what is stuck gives none. Called in either thread."""


class References(Protocol):
    """Where decoded references come from. Called in the image threads, for several jobs at once."""

    def load(
        self, files: FileStore, pins: tuple[Pin, ...], profile: ModelProfile, size: RenderSize
    ) -> tuple[Image.Image, ...]:
        """The images of a job as its model takes them, in order. Raises RunError invalid_reference."""

    def prefetch(self, files: FileStore, pins: tuple[Pin, ...], profile: ModelProfile, size: RenderSize) -> None:
        """Decode what will soon be asked for. Raises nothing."""


@dataclass(frozen=True, slots=True)
class Workshop:
    """What every run needs: settings, clock, stores, the models, the output check and the threads."""

    settings: Settings
    clock: Clock
    claims: ClaimStore
    files: FileStore
    residency: Residency
    references: References
    output_check: OutputCheck | None
    painting_thread: Executor
    image_threads: Executor
    beat: Beat
    tell: Tell
    tracer: Tracer | None = None
    meter: Meter = QUIET

    def prefetch(self, waiting: Waiting) -> None:
        """Decode the references of a job that will probably be claimed soon. Called in the image threads."""
        job = waiting.job
        profile = self.settings.models[job.model]
        self.references.prefetch(self.files, waiting.pins, profile, profile.render_size(job.width, job.height))
