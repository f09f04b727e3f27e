"""A commission and a profile become the arguments of a pipeline's call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image

from umrgen_core.profiles import ModelProfile, ReferencesAs
from umrgen_infer.painter import Commission
from umrgen_infer.pipelines.pixels import OUTPUT_TYPE

BLANK_PX = 64
OF_EACH = ("prompt", "negative_prompt", "generator")
"""Arguments that become lists where several pictures are painted in one call."""


def build_arguments(profile: ModelProfile, commission: Commission) -> dict[str, Any]:
    """Every argument of the call that paints `commission`."""
    arguments: dict[str, Any] = {
        **profile.arguments,
        "prompt": commission.prompt,
        "width": commission.width,
        "height": commission.height,
        "num_inference_steps": commission.steps,
        # One CPU generator for each job: the same seed paints the same picture on every device.
        "generator": torch.Generator("cpu").manual_seed(commission.seed),
        "output_type": OUTPUT_TYPE,
        **build_reference_arguments(profile, commission.references),
    }
    if profile.guidance_argument:
        arguments[profile.guidance_argument] = profile.guidance
    if profile.area_argument:
        arguments[profile.area_argument] = commission.width * commission.height
    if profile.negative and commission.negative:
        arguments["negative_prompt"] = commission.negative
    return arguments


def build_shared_arguments(profile: ModelProfile, commissions: Sequence[Commission]) -> dict[str, Any]:
    """Every argument of the one call that paints `commissions`, which differ in words and seed alone."""
    calls = [build_arguments(profile, commission) for commission in commissions]
    # The lists are made anew for each call: Z-Image writes into the one that it is given.
    own = {key: [call[key] for call in calls] for key in OF_EACH if key in calls[0]}
    return {**calls[0], **own}


def build_reference_arguments(profile: ModelProfile, references: tuple[Image.Image, ...]) -> dict[str, Any]:
    """The arguments that take the references, RGB and fitted already."""
    if profile.references_as is ReferencesAs.IP_ADAPTER:
        # Once an adapter is loaded it wants a picture at every call: without one it gets a blank that counts nothing.
        return {"ip_adapter_image": [list(references) or [Image.new("RGB", (BLANK_PX, BLANK_PX))]]}
    if not references:
        return {}
    if profile.references_as is ReferencesAs.LIST:
        return {"image": list(references)}
    if profile.references_as is ReferencesAs.STRENGTH:
        return {"image": references[0], "strength": profile.reference_strength}
    return {"image": references[0]}
