"""What a family of models needs beyond its profile."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from umrgen_core.profiles import ModelProfile
from umrgen_infer.pipelines import qwen_edit


@dataclass(frozen=True, slots=True)
class Family:
    """Hooks around diffusers' loading and calling, and where a negative prompt is read.

    `negative_needs` is an argument and a value that it must exceed: at or below it the pipeline takes a
    negative prompt and drops it without a word.
    """

    load_parts: Callable[[Path], dict[str, Any]] = lambda _: {}
    calling: Callable[[ModelProfile], AbstractContextManager[None]] = lambda _: nullcontext()
    negative_needs: tuple[str, float] | None = None


PLAIN = Family()
QWEN_EDIT = Family(qwen_edit.load_parts, qwen_edit.sized_references, ("true_cfg_scale", 1.0))
Z_IMAGE = Family(negative_needs=("guidance_scale", 0.0))
SDXL = Family(negative_needs=("guidance_scale", 1.0))
KONTEXT = Family(negative_needs=("true_cfg_scale", 1.0))

FAMILIES: Mapping[str, Family] = {
    "QwenImageEditPlusPipeline": QWEN_EDIT,
    "ZImagePipeline": Z_IMAGE,
    "ZImageImg2ImgPipeline": Z_IMAGE,
    "StableDiffusionXLPipeline": SDXL,
    "FluxKontextPipeline": KONTEXT,
}
"""By class of pipeline. Every other pipeline is served by its profile alone."""


def find_family(pipeline: str) -> Family:
    """The family of a class of pipeline."""
    return FAMILIES.get(pipeline, PLAIN)
