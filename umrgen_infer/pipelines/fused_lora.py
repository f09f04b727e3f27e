"""A LoRA that belongs to a model becomes part of its weights, once, at start."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from umrgen_core.errors import ConfigError

DOWN, UP, ALPHA = ".lora_A.weight", ".lora_B.weight", ".alpha"


class LoraMismatch(Exception):
    """The file is no LoRA for this model; the message goes on from its name."""


def fuse_lora(name: str, pipeline: Any, file: Path, strength: float) -> int:
    """Add the file's matrices to the pipeline's; how many there were. Raises ConfigError unless all of them fit.

    weight += strength * alpha / rank * up @ down, in float32 whatever the weights are in: rounded once. diffusers
    translates foreign names of keys and folds their alphas in.
    """
    if not hasattr(pipeline, "lora_state_dict"):
        raise ConfigError(f"[models.{name}] fused_lora: {type(pipeline).__name__} of diffusers takes no LoRA")
    try:
        weights, alphas = _read(pipeline, file)
        # All of them are found before the first is changed.
        matrices = list(_match(pipeline, weights, alphas))
    except (LoraMismatch, SafetensorError, OSError, ValueError, KeyError) as error:
        raise ConfigError(f"[models.{name}] fused_lora: {file.name} cannot be fused: {error}") from error
    with torch.no_grad():
        for weight, down, up, scale in matrices:
            product = up.float() @ down.float()
            weight.copy_(weight.float() + product.mul_(strength * scale).to(weight.device))
    return len(matrices)


def _read(pipeline: Any, file: Path) -> tuple[Mapping[str, torch.Tensor], Mapping[str, Any]]:
    read = pipeline.lora_state_dict(
        str(file.parent), weight_name=file.name, local_files_only=True, use_safetensors=True
    )
    weights, alphas = read if isinstance(read, tuple) else (read, None)
    return weights, alphas or {}


def _match(
    pipeline: Any, weights: Mapping[str, torch.Tensor], alphas: Mapping[str, Any]
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor, float]]:
    """Weight, down, up and scale of each pair. diffusers itself would only warn of what matches nothing."""
    pairs = [key.removesuffix(DOWN) for key in weights if key.endswith(DOWN)]
    known = {pair + end for pair in pairs for end in (DOWN, UP)}
    foreign = sorted(weights.keys() - known)
    if foreign or not pairs:
        raise LoraMismatch(f"it holds {foreign[0]}, which is no pair of matrices" if foreign else "it holds no LoRA")
    for pair in pairs:
        weight, down, up = _find_weight(pipeline, pair), weights[pair + DOWN], weights[pair + UP]
        if weight.shape != (up.shape[0], down.shape[-1]) or up.shape[1:] != down.shape[:1]:
            raise LoraMismatch(f"its {pair} is not made for a matrix of {tuple(weight.shape)}")
        yield weight, down, up, float(alphas.get(pair + ALPHA, down.shape[0])) / down.shape[0]


def _find_weight(pipeline: Any, pair: str) -> torch.Tensor:
    part, _, inside = pair.partition(".")
    root = getattr(pipeline, part, None)
    try:
        module = root.get_submodule(inside) if isinstance(root, nn.Module) else None
    except AttributeError:
        module = None
    if not isinstance(module, nn.Linear):
        raise LoraMismatch(f"this model has no matrix {pair}; the LoRA is made for another")
    return module.weight
