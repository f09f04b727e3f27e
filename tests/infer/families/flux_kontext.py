"""FLUX.1 Kontext: one reference for each call, CLIP and T5 for the prompt."""

from __future__ import annotations

from pathlib import Path

from diffusers import FlowMatchEulerDiscreteScheduler, FluxKontextPipeline, FluxTransformer2DModel
from transformers import CLIPTextModel

from tests.infer.families.family import Family, amplify, seeded
from tests.infer.families.text import (
    build_clip_tokenizer,
    build_t5,
    build_t5_tokenizer,
    clip_text_config,
)
from tests.infer.families.vae import build_vae

TEXT_WIDTH = 16
LATENT_CHANNELS = 16
SIDE_PX = 64


def build_kontext(folder: Path, seed: int = 0) -> None:
    """Write a guidance-distilled Kontext below `folder`."""
    with seeded(seed):
        tokenizer, tokenizer_2 = build_clip_tokenizer(), build_t5_tokenizer()
        FluxKontextPipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
            vae=build_vae(
                LATENT_CHANNELS,
                scaling_factor=0.3611,
                shift_factor=0.1159,
                use_quant_conv=False,
                use_post_quant_conv=False,
            ),
            text_encoder=CLIPTextModel(clip_text_config(tokenizer, TEXT_WIDTH)),
            tokenizer=tokenizer,
            text_encoder_2=build_t5(len(tokenizer_2), TEXT_WIDTH),
            tokenizer_2=tokenizer_2,
            transformer=amplify(
                FluxTransformer2DModel(
                    in_channels=4 * LATENT_CHANNELS,
                    num_layers=1,
                    num_single_layers=1,
                    attention_head_dim=16,
                    num_attention_heads=2,
                    joint_attention_dim=TEXT_WIDTH,
                    pooled_projection_dim=TEXT_WIDTH,
                    guidance_embeds=True,
                    axes_dims_rope=(4, 6, 6),
                )
            ),
        ).save_pretrained(folder)


# Without these two the pipeline paints one megapixel whatever it is asked for, from a reference of one megapixel.
KONTEXT = Family(
    "kontext",
    "FluxKontextPipeline",
    build_kontext,
    {"guidance_scale": 2.5, "max_area": SIDE_PX * SIDE_PX, "_auto_resize": False},
    side_px=SIDE_PX,
    max_references=1,
)
