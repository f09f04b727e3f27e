"""Any diffusers pipeline as a Painter: seeded, watched step by step, timed stage by stage."""

from __future__ import annotations

import functools
import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from umrgen_core.logs import get_logger
from umrgen_core.profiles import ModelProfile
from umrgen_infer.painter import Commission, DeviceLost, OnStep, OutOfMemory, Painting

LOG = get_logger("painter")


class DiffusersPainter:
    """A loaded pipeline and the profile that says how to call it."""

    def __init__(self, pipeline: Any, profile: ModelProfile) -> None:
        self._pipeline = pipeline
        self._profile = profile

    def close(self) -> None:
        """Let go of the weights."""
        self._pipeline = None
        _free_memory()

    def paint(self, commission: Commission, on_step: OnStep, *, lean: bool = False) -> Painting:
        """Run the pipeline once. See Painter.paint for what it raises."""
        self._set_lean(lean)
        stages = _Stages(on_step)
        out_of_memory = False
        try:
            with self._watched(stages):
                result = self._pipeline(**self._arguments(commission))
        except torch.OutOfMemoryError:
            LOG.exception("out_of_memory")
            out_of_memory = True
        except torch.AcceleratorError as error:
            raise DeviceLost(str(error)) from error
        if out_of_memory:
            # Only here, outside the except block, do the traceback's tensors let go of their memory.
            self._pipeline.maybe_free_model_hooks()
            _free_memory()
            raise OutOfMemory
        return Painting(result.images[0], stages.timings(), {"lean": True} if lean else {})

    def _set_lean(self, lean: bool) -> None:
        """Decode in tiles, one picture at a time, where memory is short."""
        for switch in ("tiling", "slicing"):
            name = f"{'enable' if lean else 'disable'}_{switch}"
            if hasattr(self._pipeline.vae, name):
                getattr(self._pipeline.vae, name)()

    def _arguments(self, commission: Commission) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            **self._profile.arguments,
            "prompt": commission.prompt,
            "width": commission.width,
            "height": commission.height,
            "num_inference_steps": commission.steps,
            # One CPU generator for each job: the same seed paints the same picture on every device.
            "generator": torch.Generator("cpu").manual_seed(commission.seed),
        }
        if self._profile.guidance_argument:
            arguments[self._profile.guidance_argument] = self._profile.guidance
        if commission.references:
            arguments["image"] = list(commission.references)
        if self._profile.negative and commission.negative:
            arguments["negative_prompt"] = commission.negative
        return arguments

    @contextmanager
    def _watched(self, stages: _Stages) -> Iterator[None]:
        """Count steps at the scheduler, which every pipeline has, whatever callbacks it offers."""
        scheduler = self._pipeline.scheduler
        step = scheduler.step
        denoiser = getattr(self._pipeline, "transformer", None) or self._pipeline.unet
        hook = denoiser.register_forward_pre_hook(lambda *_: stages.begin_denoising())
        scheduler.step = _after(step, stages.end_step)
        try:
            yield
        finally:
            del scheduler.step
            hook.remove()


class _Stages:
    """When encoding ended, each step ended, and decoding ended."""

    def __init__(self, on_step: OnStep) -> None:
        self._on_step = on_step
        self._steps = 0
        self._began = time.perf_counter()
        self._denoising: float | None = None
        self._last_step: float | None = None

    def begin_denoising(self) -> None:
        if self._denoising is None:
            self._denoising = time.perf_counter()

    def end_step(self) -> None:
        self._steps += 1
        self._last_step = time.perf_counter()
        self._on_step(self._steps)

    def timings(self) -> dict[str, float]:
        ended = time.perf_counter()
        denoising = self._denoising or ended
        last_step = self._last_step or ended
        return {
            "encode": denoising - self._began,
            "denoise": last_step - denoising,
            "decode": ended - last_step,
        }


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _after(call: Callable[..., Any], then: Callable[[], None]) -> Callable[..., Any]:
    @functools.wraps(call)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        result = call(*args, **kwargs)
        then()
        return result

    return wrapped
