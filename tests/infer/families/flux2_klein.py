"""FLUX.2 klein: references are painted beside the picture, as many as the memory holds."""

from __future__ import annotations

from pathlib import Path

from diffusers import (
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinKVPipeline,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
)

from tests.infer.families.family import Family, amplify, seeded
from tests.infer.families.text import build_qwen3, build_qwen_tokenizer

TEXT_LAYERS = 28
"""One more than the last layer that the pipeline reads by default; with fewer it would read the final norm."""
TEXT_WIDTH = 16
LATENT_CHANNELS = 4


def build_klein(folder: Path, seed: int = 0) -> None:
    """Write a distilled klein below `folder`."""
    with seeded(seed):
        Flux2KleinPipeline(**_parts(), is_distilled=True).save_pretrained(folder)


def build_klein_kv(folder: Path, seed: int = 0) -> None:
    """Write the variant that computes the references in the first step only. Its parts are klein's."""
    with seeded(seed):
        Flux2KleinKVPipeline(**_parts()).save_pretrained(folder)


def _parts() -> dict[str, object]:
    tokenizer = build_qwen_tokenizer()
    return {
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        "vae": AutoencoderKLFlux2(
            block_out_channels=(8, 8, 8, 8),
            layers_per_block=1,
            latent_channels=LATENT_CHANNELS,
            norm_num_groups=4,
            sample_size=64,
            mid_block_add_attention=False,
        ),
        "text_encoder": build_qwen3(len(tokenizer), TEXT_LAYERS, TEXT_WIDTH),
        "tokenizer": tokenizer,
        "transformer": amplify(
            Flux2Transformer2DModel(
                in_channels=4 * LATENT_CHANNELS,
                num_layers=1,
                num_single_layers=1,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=3 * TEXT_WIDTH,
                timestep_guidance_channels=16,
                mlp_ratio=2.0,
                axes_dims_rope=(4, 4, 4, 4),
                guidance_embeds=False,
            )
        ),
    }


KLEIN = Family("klein", "Flux2KleinPipeline", build_klein, {"guidance_scale": 1.0}, max_references=2)
KLEIN_KV = Family("klein-kv", "Flux2KleinKVPipeline", build_klein_kv, max_references=2)
