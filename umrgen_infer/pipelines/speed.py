"""What a profile says about speed and memory becomes true of a loaded pipeline.

Nothing here changes a setting of the whole process (TF32, cuDNN's choice of algorithms): those would change
other models' pictures without a word.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention_dispatch import AttentionBackendName, dispatch_attention_fn
from diffusers.utils.constants import DIFFUSERS_ATTN_BACKEND

from umrgen_core.errors import ConfigError
from umrgen_core.profiles import ModelProfile
from umrgen_infer.pipelines.caches import PipelineCaches, install_caches
from umrgen_infer.pipelines.shortcuts import skip_unused

RECOMPILE_LIMIT = 64
"""Graphs of one kind of block: torch's 8 are for one model, and models of one family share their blocks' code."""
CONVOLUTION_NDIM = 4


def speed_up(pipeline: Any, profile: ModelProfile, device: str) -> dict[str, object]:
    """Apply a profile's options to a pipeline; the parts of `ran_with` that hold for all its runs.

    The pipeline's weights are on `device` already, or, with `offload`, still in the computer's memory.
    To be called once, before anything is painted; LoRAs come later. Raises ConfigError that begins with
    the key of the profile.
    """
    _check_offload(profile, device)
    skip_unused(pipeline, profile)
    denoiser = find_denoiser(pipeline)
    ran_with: dict[str, object] = {"attention": _set_attention(denoiser, profile, device)}
    if profile.storage_dtype:
        compute_dtype = getattr(torch, profile.dtype)
        denoiser.enable_layerwise_casting(getattr(torch, profile.storage_dtype), compute_dtype=compute_dtype)
        ran_with["storage_dtype"] = profile.storage_dtype
    if torch.device(device).type == "cuda":
        _put_channels_last(pipeline.vae)
    if profile.compile:
        _compile(denoiser, profile)
        ran_with["compile"] = profile.compile
    if profile.offload:
        _offload(pipeline, profile, device)
        ran_with["offload"] = profile.offload
    if profile.cache_bytes:
        install_caches(pipeline, PipelineCaches(profile.cache_bytes))
    return ran_with


def find_denoiser(pipeline: Any) -> Any:
    """The transformer or UNet: what runs at every step."""
    return getattr(pipeline, "transformer", None) or pipeline.unet


def _check_offload(profile: ModelProfile, device: str) -> None:
    if profile.offload and torch.device(device).type == "cpu":
        raise ConfigError(f'offload: "{profile.offload}" needs a GPU to offload from; leave it empty on a CPU')
    if profile.offload == "sequential" and (profile.compile or profile.storage_dtype):
        raise ConfigError('offload: "sequential" goes with neither compile nor storage_dtype; choose "model"')


def _set_attention(denoiser: Any, profile: ModelProfile, device: str) -> str:
    """Set explicitly on every model: diffusers makes the last choice the default of the whole process."""
    if not any(hasattr(getattr(module, "processor", None), "_attention_backend") for module in denoiser.modules()):
        if profile.attention:
            raise ConfigError(f"attention: {type(denoiser).__name__} takes no backend; leave it empty")
        return "native"
    backend = (profile.attention or DIFFUSERS_ATTN_BACKEND).lower()
    try:
        denoiser.set_attention_backend(backend)
        _try_attention(backend, getattr(torch, profile.dtype), device)
    except (ValueError, RuntimeError, ImportError, AssertionError) as error:
        raise ConfigError(f'attention: "{backend}" cannot be used on {device}: {error}') from error
    return backend


def _try_attention(backend: str, dtype: torch.dtype, device: str) -> None:
    """A backend whose package is there may still not run on this device or type: better heard at start."""
    sample = torch.zeros(1, 128, 2, 64, dtype=dtype, device=device)  # batch, tokens, heads, width
    with torch.no_grad():
        dispatch_attention_fn(sample, sample, sample, backend=AttentionBackendName(backend))


def _put_channels_last(vae: Any) -> None:
    """The order in which a GPU's convolutions want their pixels; not for those over time as well."""
    if all(weight.ndim <= CONVOLUTION_NDIM for weight in vae.parameters()):
        vae.to(memory_format=torch.channels_last)


def _compile(denoiser: Any, profile: ModelProfile) -> None:
    """Compile the blocks that repeat: one graph serves all of a kind, and after two sizes it serves any size."""
    known = torch.compiler.list_backends(exclude_tags=())
    if profile.compile not in known:
        raise ConfigError(f'compile: torch knows no backend "{profile.compile}"; it knows {", ".join(known)}')
    try:
        denoiser.compile_repeated_blocks(backend=profile.compile, recompile_limit=RECOMPILE_LIMIT)
    except ValueError as error:
        raise ConfigError(f"compile: {type(denoiser).__name__} has no blocks to compile") from error


def _offload(pipeline: Any, profile: ModelProfile, device: str) -> None:
    if profile.offload == "sequential":
        pipeline.enable_sequential_cpu_offload(device=device)
    else:
        pipeline.enable_model_cpu_offload(device=device)
