"""A profile becomes a pipeline of diffusers, through diffusers' own from_pretrained, offline."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from umrgen_core.errors import ConfigError
from umrgen_core.profiles import ModelProfile, ReferencesAs
from umrgen_infer.painter import DeviceLost, OutOfMemory
from umrgen_infer.pipelines.batches import try_batches
from umrgen_infer.pipelines.caches import find_caches, install_caches
from umrgen_infer.pipelines.diffusers_painter import DiffusersPainter, LoadedModel
from umrgen_infer.pipelines.families import find_family
from umrgen_infer.pipelines.faults import free_memory, is_loss, is_shortage
from umrgen_infer.pipelines.fit import require_fit
from umrgen_infer.pipelines.fused_lora import fuse_lora
from umrgen_infer.pipelines.loras import LoraRack
from umrgen_infer.pipelines.schedulers import override_scheduler
from umrgen_infer.pipelines.speed import speed_up
from umrgen_infer.pipelines.trust import require_trusted, require_whole
from umrgen_infer.pipelines.warm_up import warm_up
from umrgen_infer.pipelines.weights import IMAGE_ENCODER, find_file, find_folder, how_to_fetch

FindLora = Callable[[str], Path | None]


def load_painter(
    name: str, profile: ModelProfile, threads: int = 0, find_lora: FindLora = lambda _: None
) -> DiffusersPainter:
    """Load the weights, check that the profile fits the pipeline, and paint to warm up.

    `find_lora` gives the file of a request's LoRA. Raises ConfigError that names the profile and what does not
    fit; OutOfMemory and DeviceLost as Painter.paint does.
    """
    if threads:
        torch.set_num_threads(threads)
    quieten()
    painter = _load_or_free(name, profile, find_lora)
    try:
        warm_up(name, profile, painter)
        painter.batches = try_batches(name, profile, painter)
    except BaseException:
        painter.close()
        raise
    return painter


def _load_or_free(name: str, profile: ModelProfile, find_lora: FindLora) -> DiffusersPainter:
    try:
        return _load(name, profile, find_lora)
    except (RuntimeError, MemoryError) as error:
        if is_loss(error) and not is_shortage(error):
            raise DeviceLost(str(error)) from error
        if not is_shortage(error):
            raise
    # Outside of the except block, where nothing holds the half of the weights that was there.
    free_memory()
    raise OutOfMemory


def _load(name: str, profile: ModelProfile, find_lora: FindLora) -> DiffusersPainter:
    plain, with_references = require_fit(name, profile)
    folder = find_folder(name, profile)
    require_trusted(name, profile, folder)
    # Found before gigabytes are read.
    files = {key: find_file(name, key, profile) for key in ("fused_lora", "ip_adapter") if getattr(profile, key)}
    pipeline = _read_pipeline(name, profile, plain, folder)
    override_scheduler(name, profile, pipeline)
    if "fused_lora" in files:
        fuse_lora(name, pipeline, files["fused_lora"], profile.fused_lora_strength)
    if profile.references_as is ReferencesAs.IP_ADAPTER:
        _read_adapter(name, pipeline, files["ip_adapter"])
    return DiffusersPainter(_equip(name, profile, pipeline, with_references, find_lora))


def quieten() -> None:
    """No progress bars, and no warnings: some of them quote the prompt, which belongs in no log."""
    diffusers_logging.disable_progress_bar()
    diffusers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()


def choose_device(profile: ModelProfile) -> str:
    """The device of a profile: CUDA where there is one, unless it names another."""
    if profile.device != "auto":
        return profile.device
    return "cuda" if torch.cuda.is_available() else "cpu"


def _read_pipeline(name: str, profile: ModelProfile, plain: Any, folder: Path) -> Any:
    try:
        pipeline = plain.from_pretrained(
            str(folder),
            dtype=getattr(torch, profile.dtype),
            local_files_only=True,
            use_safetensors=True,
            **find_family(profile.pipeline).load_parts(folder),
        )
    except (OSError, ValueError, KeyError, ImportError, AttributeError, SafetensorError) as error:
        raise ConfigError(
            f"[models.{name}] path: {folder} cannot be loaded as {profile.pipeline}: {error}\n"
            f"Where it comes from the hub, and a file is missing, run: {how_to_fetch(name)}"
        ) from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _read_adapter(name: str, pipeline: Any, file: Path) -> None:
    """Its image encoder lies beside it: diffusers would open a pickle there, so it is looked at before."""
    require_whole(name, file.parent / IMAGE_ENCODER)
    try:
        pipeline.load_ip_adapter(str(file.parent), subfolder="", weight_name=file.name, local_files_only=True)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ConfigError(f"[models.{name}] ip_adapter: {file} cannot be loaded: {error}") from error


def _equip(name: str, profile: ModelProfile, pipeline: Any, with_references: Any, find_lora: FindLora) -> LoadedModel:
    device = choose_device(profile)
    try:
        if not profile.offload:
            pipeline.to(device)
        ran_with = speed_up(pipeline, profile, device)
        loras = LoraRack(pipeline, find_lora, profile)
    except ConfigError as error:
        raise ConfigError(f"[models.{name}] {error.message}") from error
    except (RuntimeError, AssertionError) as error:
        if is_shortage(error) or is_loss(error):
            raise
        raise ConfigError(f"[models.{name}] device: {device!r} cannot be used: {error}") from error
    second = share_parts(pipeline, with_references) if with_references else pipeline
    return LoadedModel(pipeline, second, profile, device, loras, ran_with)


def share_parts(pipeline: Any, other: Any) -> Any:
    """A pipeline of another class over the same weights.

    Built from the parts themselves: diffusers' from_pipe would cast them. The scheduler is the one part that a
    call changes, so each has its own.
    """
    known = inspect.signature(other.__init__).parameters
    parts = {**pipeline.config, **pipeline.components, "scheduler": copy.deepcopy(pipeline.scheduler)}
    second = other(**{key: part for key, part in parts.items() if key in known})
    second.set_progress_bar_config(disable=True)
    caches = find_caches(pipeline)
    if caches is not None:
        install_caches(second, caches)
    return second
