"""A step-distilling LoRA in the layout of the published Lightning files."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import QwenImageTransformer2DModel
from safetensors.torch import save_file

from tests.infer.families.family import seeded

RANK = 2
WEIGHTS = "lightning.safetensors"
ADAPTED = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")


def build_lightning_lora(folder: Path, transformer: QwenImageTransformer2DModel, seed: int = 0) -> None:
    """Write `WEIGHTS` below `folder`: a down, an up and an alpha for each attention matrix of `transformer`."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {}
    with seeded(seed):
        for name, module in transformer.named_modules():
            if not name.endswith(tuple(f".attn.{part}" for part in ADAPTED)):
                continue
            weights[f"{name}.lora_down.weight"] = torch.randn(RANK, module.in_features)
            weights[f"{name}.lora_up.weight"] = torch.randn(module.out_features, RANK)
            weights[f"{name}.alpha"] = torch.tensor(float(RANK))
    save_file(weights, folder / WEIGHTS)
