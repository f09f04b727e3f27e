"""LoRA files: which one it is, what is in it, and whether a model has a place for that."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load

METADATA = "lora_adapter_metadata"
"""Where diffusers writes peft's settings, in the header of safetensors."""
HEADER_LENGTH_BYTES = 8
DOWN = re.compile(r"lora_A\b|lora_down|_lora\d?\.down|lora\.down|lora_linear_layer\.down|lora_embedding_A")
"""The first matrix of a pair, in every layout that diffusers reads."""
MORE_THAN_A_LORA = re.compile(
    r"lokr_|hada_|oft_|dora_scale|lora_magnitude_vector|norm_(added_)?[qkv]|(query|key)_norm|\.diff"
)
"""What diffusers drops, or writes over the weights for good."""
FOREIGN = (ValueError, RuntimeError, KeyError, TypeError, IndexError, AttributeError, AssertionError)
"""What diffusers and peft raise at a LoRA of another model or in an unknown layout."""


class UnfitLora(Exception):
    """A file is of no use for the model. The text says why, as the end of a sentence."""


@dataclass(frozen=True, slots=True)
class LoraFile:
    """A file as it is now: one that the owner replaces is another."""

    path: Path
    inode: int
    size_bytes: int
    mtime_ns: int


def find_identity(path: Path) -> LoraFile | None:
    """The file at `path`, or None."""
    try:
        status = path.stat()
    except OSError:
        return None
    return LoraFile(path, status.st_ino, status.st_size, status.st_mtime_ns)


def read_tensors(file: LoraFile, dtype: torch.dtype, most_bytes: int) -> dict[str, torch.Tensor]:
    """The tensors by name, in `dtype` and on the CPU, each pair of matrices with its alpha from the header in it.

    Raises UnfitLora unless the file is a plain LoRA in safetensors of at most `most_bytes`. Pickles are never read.
    """
    if file.size_bytes > most_bytes:
        raise UnfitLora(f"its file is larger than {most_bytes >> 20} MiB")
    try:
        content = file.path.read_bytes()  # not mapped: a mapped file that is cut short kills the process
        tensors = load(content)
    except OSError as error:
        raise UnfitLora("its file cannot be read") from error
    except SafetensorError as error:
        raise UnfitLora("its file is not in the format safetensors, or not whole") from error
    if any(MORE_THAN_A_LORA.search(key) for key in tensors):
        raise UnfitLora("it holds more than a LoRA, which cannot be undone after a job")
    if not count_layers(tensors):
        raise UnfitLora("its file holds no LoRA")
    return {key: _cast(tensor, dtype) for key, tensor in _scale(tensors, _read_settings(content)).items()}


def count_bytes(tensors: Mapping[str, torch.Tensor]) -> int:
    """Their memory."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def count_layers(tensors: Mapping[str, torch.Tensor]) -> int:
    """How many layers of a model they change."""
    return sum(DOWN.search(key) is not None for key in tensors)


def require_fit(pipeline: Any, tensors: Mapping[str, torch.Tensor]) -> None:
    """Raise UnfitLora if a matrix is of another shape than the transformer's layer of its name.

    For some of those diffusers would widen the layer, and never narrow it again.
    """
    transformer = getattr(pipeline, "transformer", None)
    if transformer is None:
        return
    converted = pipeline.lora_state_dict(dict(tensors))
    layers = dict(transformer.named_modules())
    for name, down, up in _list_pairs(converted, "transformer."):
        layer = getattr(layers.get(name), "base_layer", layers.get(name))  # below the LoRAs that it has already
        if isinstance(layer, torch.nn.Linear) and (up.shape[0], down.shape[1]) != (
            layer.out_features,
            layer.in_features,
        ):
            raise UnfitLora(f"it was made for another model: {name} has another shape")


def _list_pairs(tensors: Mapping[str, torch.Tensor], prefix: str) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    for key, down in tensors.items():
        up = tensors.get(key.replace(".lora_A.", ".lora_B."))
        if key.startswith(prefix) and key.endswith(".lora_A.weight") and up is not None:
            yield key.removeprefix(prefix).removesuffix(".lora_A.weight"), down, up


def _cast(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Alphas are numbers, not weights: they keep their type."""
    return tensor.to(dtype) if tensor.ndim and tensor.is_floating_point() else tensor


def _read_settings(content: bytes) -> dict[str, Any]:
    """The settings of peft as diffusers writes them, by part of the pipeline and name; {} where there are none."""
    length = int.from_bytes(content[:HEADER_LENGTH_BYTES], "little")
    header = json.loads(content[HEADER_LENGTH_BYTES : HEADER_LENGTH_BYTES + length])
    try:
        settings = json.loads(header.get("__metadata__", {}).get(METADATA, "{}"))
    except ValueError as error:
        raise UnfitLora("its header cannot be read") from error
    return settings if isinstance(settings, dict) else {}


def _scale(tensors: Mapping[str, torch.Tensor], settings: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Multiply by alpha / rank what the header gives an alpha for.

    Nothing else in the header is taken: peft's settings may name modules to import and layers to repeat.
    """
    scaled = dict(tensors)
    for key, up in tensors.items():
        name, mark, _ = key.partition(".lora_B.")
        part, _, layer = name.partition(".")
        alpha = _find_alpha(settings, part, layer) if mark else None
        if alpha is None or up.ndim < 2:  # a bias is not scaled
            continue
        rank = up.shape[1]
        scaled[key] = up.float() * (alpha / (math.sqrt(rank) if settings.get(f"{part}.use_rslora") else rank))
    return scaled


def _find_alpha(settings: Mapping[str, Any], part: str, layer: str) -> float | None:
    own = settings.get(f"{part}.alpha_pattern")
    if isinstance(own, dict):
        for pattern, alpha in own.items():
            if f".{layer}".endswith("." + str(pattern).lstrip("^")) and isinstance(alpha, int | float):
                return float(alpha)
    alpha = settings.get(f"{part}.lora_alpha")
    return float(alpha) if isinstance(alpha, int | float) else None
