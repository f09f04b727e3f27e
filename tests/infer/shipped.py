"""The shipped profiles over tiny random weights of their own families."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import diffusers
from safetensors.torch import load_file, save_file

from tests.conftest import ROOT
from tests.infer.families.flux2_klein import KLEIN, KLEIN_KV
from tests.infer.families.flux_kontext import KONTEXT
from tests.infer.families.lora import WEIGHTS, build_lightning_lora
from tests.infer.families.qwen_edit import QWEN_EDIT
from tests.infer.families.sdxl import ADAPTER_WEIGHTS, SDXL, build_ip_adapter
from tests.infer.families.z_image import Z_IMAGE
from umrgen_core.config import load_settings
from umrgen_core.profiles import ModelProfile

SHIPPED = {
    "flux2-klein-4b": KLEIN,
    "flux2-klein-9b-kv": KLEIN_KV,
    "z-image-turbo": Z_IMAGE,
    "qwen-image-edit-2511": QWEN_EDIT,
    "sdxl-turbo": SDXL,
    "flux1-kontext-dev": KONTEXT,
}
"""Which tiny weights stand in for those of a profile."""
SMALL_AREA_PX = 64 * 64
CAPPED = {"flux2-klein-4b", "flux2-klein-9b-kv", "qwen-image-edit-2511"}
"""Profiles that cap their references, here at SMALL_AREA_PX."""


@functools.cache
def shipped_profiles() -> dict[str, ModelProfile]:
    return load_settings(ROOT / "config.toml").models


def shrink(name: str, folder: Path, **changes: Any) -> ModelProfile:
    """A shipped profile over tiny weights, which are built below `folder` on the first call."""
    family, small = SHIPPED[name], folder / name
    if not small.exists():
        family.build(small, 0)
    here: dict[str, Any] = {"path": str(small), "device": "cpu", "dtype": "float32", "warm_up": ["64x64"]}
    if name in CAPPED:
        here["reference_area_px"] = SMALL_AREA_PX
    if name == "sdxl-turbo":
        here["ip_adapter"] = str(build_adapter(folder / "adapter", small))
    if name == "qwen-image-edit-2511":
        here["fused_lora"] = str(build_lightning(folder / "lightning", small))
    if name == "flux1-kontext-dev":
        # Left alone, the pipeline brings a reference to a megapixel: seconds of work that show nothing more.
        here["arguments"] = {"_auto_resize": False}
    return shipped_profiles()[name].model_copy(update={**here, **changes})


def build_adapter(folder: Path, weights: Path) -> Path:
    """An IP-Adapter in the layout of the hub: its image encoder lies beside it."""
    inside = folder / "sdxl_models"
    if not inside.exists():
        build_ip_adapter(inside, diffusers.UNet2DConditionModel.from_pretrained(weights / "unet"))
        (inside / ADAPTER_WEIGHTS).rename(inside / "ip-adapter_sdxl.safetensors")
    return inside / "ip-adapter_sdxl.safetensors"


def build_lightning(folder: Path, weights: Path) -> Path:
    """A LoRA weak enough that the picture stays one."""
    if not folder.exists():
        build_lightning_lora(folder, diffusers.QwenImageTransformer2DModel.from_pretrained(weights / "transformer"))
        tensors = load_file(folder / WEIGHTS)
        save_file({key: tensor * (0.1 if "lora_up" in key else 1) for key, tensor in tensors.items()}, folder / WEIGHTS)
    return folder / WEIGHTS
