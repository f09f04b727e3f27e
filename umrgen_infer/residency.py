"""Which models are loaded, and how a picture is painted within the device's memory.

It belongs to the painting thread; any thread may ask `resident`, `last_load`, `find_broken`, `find_absence_s` and
`find_most_together`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from umrgen_core.clock import Clock
from umrgen_core.config import Settings
from umrgen_core.errors import RunError
from umrgen_core.jobs import ErrorCode
from umrgen_core.logs import get_logger
from umrgen_core.meter import QUIET, Meter
from umrgen_infer.memory import Admission, DoesNotFit, ReadMemory, read_nothing
from umrgen_infer.painter import Commission, DeviceLost, OnStep, OutOfMemory, Painter, Painting, PaintsTogether

LOG = get_logger("residency")
FIRST_PAUSE_S = 5.0
LONGEST_PAUSE_S = 300.0

LoadPainter = Callable[[str], Painter]
"""Loads a model by its name, in the painting thread. Raises OutOfMemory, DeviceLost, or what went wrong."""


@dataclass(frozen=True, slots=True)
class LastLoad:
    """When the last load ended, in boot time, and how long it took."""

    ended_s: float
    took_s: float


@dataclass(frozen=True, slots=True)
class _Failure:
    """A model that could not be loaded, and when that is tried again, in boot time."""

    pause_s: float
    until_s: float


class Residency:
    """The loaded models of one device."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        load_painter: LoadPainter,
        read_memory: ReadMemory = read_nothing,
        meter: Meter = QUIET,
    ) -> None:
        self._limit_bytes = settings.infer.memory_bytes
        self._clock = clock
        self._load_painter = load_painter
        self._read_memory = read_memory
        self._meter = meter
        self._painters: dict[str, Painter] = {}  # the least recently used first
        profiles = settings.served_models
        self._bytes = {name: profile.memory_bytes for name, profile in profiles.items()}
        self._admissions = {name: Admission(profile, self._now_s) for name, profile in profiles.items()}
        self._failures: dict[str, _Failure] = {}
        self._evicted_at_s: dict[str, float] = {}
        self._together: dict[str, PaintsTogether] = {}
        self._most_together: dict[str, int] = {}  # what the device's memory has been too small for is not tried again
        self.resident: tuple[str, ...] = ()
        """The loaded models, the least recently used first; replaced as a whole."""
        self.last_load = LastLoad(self._now_s(), 0.0)
        """Replaced as a whole."""

    def find_broken(self) -> frozenset[str]:
        """The models that could not be loaded and are not tried again yet."""
        now_s = self._now_s()
        return frozenset(name for name, failure in dict(self._failures).items() if failure.until_s > now_s)

    def find_absence_s(self, model: str) -> float:
        """Seconds since a model was pushed out; infinite for one that never was."""
        return self._now_s() - self._evicted_at_s.get(model, float("-inf"))

    def load(self, model: str) -> None:
        """Load a model, and push out others for it. Raises whatever its loading raises."""
        began = time.perf_counter()
        self._make_room(model, self._bytes[model], self._limit_bytes or self._read_room())
        self._painters[model] = self._load_or_clear(model)
        took_s = time.perf_counter() - began
        # Where the profile does not say, only now is it known how much it takes.
        self._make_room(model, self._bytes[model], self._limit_bytes or self._read_room())
        self._failures.pop(model, None)
        self._note_together(model)
        self._note_resident()
        self.last_load = LastLoad(self._now_s(), took_s)
        self._meter.model_loaded(model, took_s)
        LOG.info("model_loaded", model=model, memory_bytes=self._bytes[model], duration_s=round(took_s, 6))

    def _load_or_clear(self, model: str) -> Painter:
        try:
            return self._load_measured(model)
        except OutOfMemory:
            if not self._painters:
                raise
        self._evict_others(model)
        return self._load_measured(model)

    def _load_measured(self, model: str) -> Painter:
        used_bytes = self._read_used()
        painter = self._load_painter(model)
        self._bytes[model] = self._bytes[model] or max(self._read_used() - used_bytes, 0)
        return painter

    def paint(self, model: str, commission: Commission, on_step: OnStep) -> Painting:
        """Paint with `model`, loaded if need be.

        Raises DoesNotFit; RunError when the model cannot be loaded; and what Painter.paint raises.
        """
        load_s = self._ensure_loaded(model)
        if load_s:
            on_step(0)  # it took its time: somebody may have asked for a cancel
        lean = self._admit(model, commission)
        painting = self._try(model, commission, on_step, lean=lean)
        if painting is None and (not lean or len(self._painters) > 1):
            self._evict_others(model)
            painting = self._try(model, commission, on_step, lean=True)
        if painting is None:
            raise DoesNotFit(self._admissions[model].find_largest(commission, self._read_room() or 0))
        return replace(painting, timings={**painting.timings, "load_model": load_s}) if load_s else painting

    def find_most_together(self, model: str, width: int, height: int) -> int:
        """How many pictures of so many pixels `model` may paint in one call; 1 where it is not loaded."""
        painter = self._together.get(model)
        if painter is None:
            return 1
        most = painter.find_most_together(width, height)
        return min(most, self._most_together.get(model, most))

    def paint_together(self, model: str, commissions: Sequence[Commission], on_step: OnStep) -> Sequence[Painting]:
        """Paint several in one call. Raises whatever goes wrong: nothing is tried twice, and nothing painted lean."""
        self._ensure_loaded(model)
        try:
            return self._together[model].paint_together(commissions, on_step)
        except OutOfMemory:
            self._meter.ran_out_of_memory(model)
            self._most_together[model] = max(len(commissions) // 2, 1)
            raise

    def _note_together(self, model: str) -> None:
        painter = self._painters[model]
        if isinstance(painter, PaintsTogether):
            self._together[model] = painter

    def _ensure_loaded(self, model: str) -> float:
        """Make `model` the most recently used; the seconds that its loading took. Raises RunError."""
        if model in self._painters:
            self._painters[model] = self._painters.pop(model)
            self._note_resident()
            return 0.0
        if model not in self.find_broken():
            try:
                self.load(model)
            except DeviceLost:
                raise
            except Exception:
                LOG.exception("model_not_loaded", model=model)
                self._note_failure(model)
                self._meter.model_not_loaded(model)
            else:
                return self.last_load.took_s
        error = (
            f"The model {model} cannot be loaded at present. Try again later, name another model, or tell the owner."
        )
        raise RunError(ErrorCode.MODEL_ERROR, error, retryable=True)

    def _note_failure(self, model: str) -> None:
        before = self._failures.get(model)
        pause_s = min(before.pause_s * 2, LONGEST_PAUSE_S) if before else FIRST_PAUSE_S
        self._failures[model] = _Failure(pause_s, self._now_s() + pause_s)

    def _admit(self, model: str, commission: Commission) -> bool:
        """Whether the commission must be painted lean; others are pushed out for it. Raises DoesNotFit."""
        room_bytes = self._read_room()
        if room_bytes is None:
            return False
        lean, needed_bytes = self._admissions[model].choose(commission, room_bytes)
        self._make_room(model, needed_bytes, room_bytes)
        return lean

    def _try(self, model: str, commission: Commission, on_step: OnStep, *, lean: bool) -> Painting | None:
        """The painting, or None when the device's memory did not suffice."""
        others_bytes = sum(self._bytes[other] for other in self._painters if other != model)
        admission = self._admissions[model]
        try:
            painting = self._painters[model].paint(commission, on_step, lean=lean)
        except OutOfMemory:
            self._meter.ran_out_of_memory(model)
            room_bytes = self._read_room()
            LOG.warning("out_of_memory", model=model, lean=lean, others=len(self._painters) - 1)
            if room_bytes is not None and len(self._painters) == 1:
                admission.learn_shortage(commission, room_bytes, lean=lean)
            return None
        if painting.peak_bytes:
            admission.learn(commission, max(painting.peak_bytes - others_bytes, 0), lean=lean)
        return replace(painting, ran_with={**painting.ran_with, "lean": True}) if lean else painting

    def _make_room(self, model: str, needed_bytes: int, limit_bytes: int | None) -> None:
        """Push out the least recently used of the others until `model` can take so much within the limit."""
        if limit_bytes is None:
            return
        others = [name for name in self._painters if name != model]
        while others and sum(self._bytes[name] for name in others) + needed_bytes > limit_bytes:
            self._evict(others.pop(0))

    def _evict_others(self, model: str) -> None:
        for name in [name for name in self._painters if name != model]:
            self._evict(name)

    def _evict(self, model: str) -> None:
        self._together.pop(model, None)
        self._painters.pop(model).close()
        self._evicted_at_s[model] = self._now_s()
        self._note_resident()
        self._meter.model_evicted(model)
        LOG.info("model_evicted", model=model)

    def _note_resident(self) -> None:
        self.resident = tuple(self._painters)

    def _read_room(self) -> int | None:
        """All that one model and its run may take; None where nobody knows."""
        memory = self._read_memory()
        return memory.total_bytes if memory else self._limit_bytes or None

    def _read_used(self) -> int:
        memory = self._read_memory()
        return memory.used_bytes if memory else 0

    def _now_s(self) -> float:
        return self._clock.boot_ms() / 1000
