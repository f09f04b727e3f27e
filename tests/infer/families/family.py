"""What a test needs to know of a family of models: how to build a tiny one and how to call it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn


@dataclass(frozen=True, eq=False)
class Family:
    """One pipeline class of diffusers, with random weights of a few hundred kilobytes."""

    name: str
    pipeline: str
    """Name of the class in diffusers."""
    build: Callable[[Path, int], None]
    """`build(folder, seed)` writes a pipeline in diffusers' layout; no network."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """Fixed arguments of every call, as a profile would give them."""
    side_px: int = 64
    max_references: int = 0
    needs_reference: bool = False


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Weights made inside depend on the seed alone, and the caller's random numbers go on undisturbed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def amplify(module: nn.Module, gain: float = 5.0) -> Any:
    """Multiply every matrix: fresh weights are so small that nothing but the noise would show in eight bits."""
    for weight in module.parameters():
        if weight.ndim > 1:
            weight.data.mul_(gain)
    return module


def plain_pictures(*colours: str, side_px: int = 64) -> list[Image.Image]:
    """One reference for each colour."""
    return [Image.new("RGB", (side_px, side_px), colour) for colour in colours]
