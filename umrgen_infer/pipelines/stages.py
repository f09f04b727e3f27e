"""When encoding, each step and decoding ended, on the device's own clock."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch

from umrgen_infer.painter import OnStep


class Ticks(Protocol):
    """Marks in time. A GPU works through what it was handed, so its marks lie behind the processor's."""

    def mark(self) -> Any:
        """Now, in the order of the work that was handed over."""

    def wait(self, mark: Any) -> None:
        """Return when the device has got so far."""

    def seconds(self, one: Any, other: Any) -> float:
        """From one mark to another, both waited for."""


class ProcessorTicks:
    """On a processor the work is done when the call returns."""

    def mark(self) -> float:
        """The performance counter."""
        return time.perf_counter()

    def wait(self, mark: float) -> None:
        """Nothing to wait for."""

    def seconds(self, one: float, other: float) -> float:
        """The difference."""
        return other - one


class CudaTicks:
    """Events in the stream of a CUDA device."""

    def mark(self) -> torch.cuda.Event:
        """An event after all that was launched."""
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def wait(self, mark: torch.cuda.Event) -> None:
        """Wait for the event alone; what was launched after it goes on."""
        mark.synchronize()

    def seconds(self, one: torch.cuda.Event, other: torch.cuda.Event) -> float:
        """Measured by the device."""
        return float(one.elapsed_time(other)) / 1e3


class Stages:
    """What happened in one call of a pipeline.

    `count_steps` tells, from the first step on, how many the pipeline will run, which may be fewer than
    were asked for: progress is told in steps asked for.
    """

    def __init__(self, on_step: OnStep, steps: int, count_steps: Callable[[], int | None], ticks: Ticks) -> None:
        self._on_step = on_step
        self._asked = steps
        self._count_steps = count_steps
        self._ticks = ticks
        self._done = 0
        self._began = ticks.mark()
        self._denoising: Any = None
        self._last_step: Any = None

    def begin_denoising(self) -> None:
        """The denoiser is called: whatever came before was encoding."""
        if self._denoising is None:
            self._denoising = self._ticks.mark()

    def end_step(self) -> None:
        """Report a step. The processor runs ahead of a GPU by one step at most, or a cancel would come late."""
        previous, self._last_step = self._last_step, self._ticks.mark()
        if previous is not None:
            self._ticks.wait(previous)
        self._done += 1
        run = max(self._count_steps() or self._asked, self._done)
        self._on_step(self._asked * self._done // run)

    def timings(self) -> dict[str, float]:
        """Seconds of encode, denoise and decode, after the picture has left the device."""
        ended = self._ticks.mark()
        self._ticks.wait(ended)
        denoising = self._denoising or ended
        last_step = self._last_step or ended
        return {
            "encode": self._ticks.seconds(self._began, denoising),
            "denoise": self._ticks.seconds(denoising, last_step),
            "decode": self._ticks.seconds(last_step, ended),
        }


def choose_ticks(device: str) -> Ticks:
    """The clock of a device."""
    return CudaTicks() if torch.device(device).type == "cuda" else ProcessorTicks()


@contextmanager
def watch(pipeline: Any, denoiser: Any, stages: Stages) -> Iterator[None]:
    """Count steps at the scheduler, which every pipeline has, whatever callbacks it offers."""
    scheduler = pipeline.scheduler
    hook = denoiser.register_forward_pre_hook(lambda *_: stages.begin_denoising())
    scheduler.step = _after(scheduler.step, stages.end_step)
    try:
        yield
    finally:
        del scheduler.step
        hook.remove()


def _after(call: Callable[..., Any], then: Callable[[], None]) -> Callable[..., Any]:
    @functools.wraps(call)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        result = call(*args, **kwargs)
        then()
        return result

    return wrapped
