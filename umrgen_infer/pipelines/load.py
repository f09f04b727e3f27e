"""A profile becomes a pipeline of diffusers, through diffusers' own from_pretrained, offline."""

from __future__ import annotations

import inspect
from importlib import resources
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from umrgen_core.errors import ConfigError
from umrgen_core.profiles import MIN_SIDE_PX, ModelProfile
from umrgen_infer.painter import Commission
from umrgen_infer.pipelines.diffusers_painter import DiffusersPainter

WARM_UP_STEPS = 1


def load_painter(name: str, profile: ModelProfile, threads: int) -> DiffusersPainter:
    """Load the weights, check that the profile fits the pipeline, and paint once to warm up.

    Raises ConfigError that names the profile and what does not fit.
    """
    if threads:
        torch.set_num_threads(threads)
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    pipeline_class = getattr(diffusers, profile.pipeline, None)
    if pipeline_class is None:
        raise ConfigError(f"[models.{name}] pipeline: diffusers {diffusers.__version__} has no {profile.pipeline}")
    _check_arguments(name, profile, pipeline_class)
    folder = find_folder(name, profile)
    pipeline = pipeline_class.from_pretrained(
        str(folder), dtype=getattr(torch, profile.dtype), local_files_only=True, use_safetensors=True
    )
    pipeline.set_progress_bar_config(disable=True)
    pipeline.to(_choose_device(profile))
    painter = DiffusersPainter(pipeline, profile)
    _warm_up(painter, profile)
    return painter


def find_folder(name: str, profile: ModelProfile) -> Path:
    """The folder that a profile's path means. Raises ConfigError when it holds no pipeline."""
    if profile.path.startswith("package:"):
        package, _, inside = profile.path.removeprefix("package:").partition("/")
        folder = Path(str(resources.files(package))) / inside
    else:
        folder = Path(profile.path)
    if not (folder / "model_index.json").is_file():
        raise ConfigError(f"[models.{name}] path: {folder} holds no pipeline (no model_index.json)")
    return folder


def _check_arguments(name: str, profile: ModelProfile, pipeline_class: Any) -> None:
    known = inspect.signature(pipeline_class.__call__).parameters
    needed = [*profile.arguments, "prompt", "width", "height", "num_inference_steps", "generator"]
    needed += [profile.guidance_argument] if profile.guidance_argument else []
    needed += ["image"] if profile.references else []
    needed += ["negative_prompt"] if profile.negative else []
    for argument in needed:
        if argument not in known:
            raise ConfigError(f"[models.{name}]: {profile.pipeline} takes no argument {argument!r}")


def _choose_device(profile: ModelProfile) -> str:
    if profile.device != "auto":
        return profile.device
    return "cuda" if torch.cuda.is_available() else "cpu"


def _warm_up(painter: DiffusersPainter, profile: ModelProfile) -> None:
    size = profile.render_size(MIN_SIDE_PX, MIN_SIDE_PX)
    commission = Commission("warm-up", "", size.width, size.height, WARM_UP_STEPS, 0, ())
    painter.paint(commission, lambda _: None)
