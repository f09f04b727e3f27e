"""Work that a pipeline does and then does not read is left out. The picture stays the same in every bit."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from umrgen_core.profiles import ModelProfile

OUT_LAYERS = "text_encoder_out_layers"
"""Argument of klein's pipelines: which hidden states of the text encoder make up the prompt's embedding."""


def skip_unused(pipeline: Any, profile: ModelProfile) -> Mapping[str, int]:
    """Take out of the text encoder what the pipeline never reads, and let go of its memory.

    Returns what was skipped: `text_layers`, the layers that are not computed, and `logits`, 1 where the
    prompt's logits are not. To be called before anything wraps the layers (offload, casts, compile).
    """
    shortcut = SHORTCUTS.get(type(pipeline).__name__)
    return shortcut(pipeline, profile) if shortcut else {}


def _skip_of_klein(pipeline: Any, profile: ModelProfile) -> Mapping[str, int]:
    """Klein reads some of the hidden states, whose indices are fixed for all calls, and no logits."""
    default = inspect.signature(type(pipeline).__call__).parameters[OUT_LAYERS].default
    chosen = profile.arguments.get(OUT_LAYERS, default)
    encoder = pipeline.text_encoder
    skipped = {"logits": _skip_logits(encoder)}
    if min(chosen) >= 0:  # counted from the end, they mean all the layers
        skipped["text_layers"] = _skip_layers(encoder.model, max(chosen))
    return skipped


def _skip_of_z_image(pipeline: Any, _: ModelProfile) -> Mapping[str, int]:
    """Z-Image reads the last hidden state but one: what goes into the last layer."""
    layers = pipeline.text_encoder.layers
    return {"text_layers": _skip_layers(pipeline.text_encoder, len(layers) - 1)}


def _skip_of_qwen_edit(pipeline: Any, _: ModelProfile) -> Mapping[str, int]:
    """Qwen reads the last hidden state, after the norm: every layer counts, the logits do not."""
    return {"logits": _skip_logits(pipeline.text_encoder)}


def _skip_layers(decoder: Any, computed: int) -> int:
    """Compute the first `computed` layers only.

    One layer more stays behind as an empty shell. transformers records hidden states where a layer is called
    and replaces the last of them by the normed output: without the shell that would be one that is read.
    """
    layers = decoder.layers
    if computed >= len(layers) or layers[-1].forward is _pass_on:  # skipped before, by a pipeline that shares it
        return 0
    skipped = len(layers) - computed
    del layers[computed + 1 :]
    shell = layers[computed]
    shell._modules.clear()  # noqa: SLF001 - the way to let go of a module's children
    shell.forward = _pass_on
    return skipped


def _pass_on(hidden_states: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    return hidden_states


def _skip_logits(encoder: Any) -> int:
    encoder.lm_head = _NoLogits()
    return 1


class _NoLogits(nn.Module):
    """In place of the vocabulary's matrix: its output is not read. A matrix tied to the embedding stays there."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(…, tokens, width) → (…, tokens, 0)."""
        return hidden_states[..., :0]


SHORTCUTS: Mapping[str, Callable[[Any, ModelProfile], Mapping[str, int]]] = {
    "Flux2KleinPipeline": _skip_of_klein,
    "Flux2KleinKVPipeline": _skip_of_klein,
    "ZImagePipeline": _skip_of_z_image,
    "ZImageImg2ImgPipeline": _skip_of_z_image,
    "QwenImageEditPlusPipeline": _skip_of_qwen_edit,
}
"""By class of pipeline: SDXL and Kontext read all that their text encoders compute, or nearly."""
