"""SDXL-Turbo: references come in through an IP-Adapter, loaded beside the pipeline."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import EulerAncestralDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPVisionConfig, CLIPVisionModelWithProjection

from tests.infer.families.family import Family, seeded
from tests.infer.families.text import build_clip_tokenizer, clip_text_config
from tests.infer.families.vae import build_vae

TEXT_WIDTH = 16
CROSS_WIDTH = 2 * TEXT_WIDTH
"""Both text encoders side by side."""
TIME_WIDTH = 8
IMAGE_WIDTH = 16
IMAGE_TOKENS = 4
ADAPTER_WEIGHTS = "ip-adapter.safetensors"


def build_sdxl(folder: Path, seed: int = 0) -> None:
    """Write an SDXL-Turbo below `folder`."""
    with seeded(seed):
        tokenizer = build_clip_tokenizer()
        StableDiffusionXLPipeline(
            vae=build_vae(4, scaling_factor=0.13025),
            text_encoder=CLIPTextModel(clip_text_config(tokenizer, TEXT_WIDTH)),
            text_encoder_2=CLIPTextModelWithProjection(clip_text_config(tokenizer, TEXT_WIDTH)),
            tokenizer=tokenizer,
            tokenizer_2=build_clip_tokenizer(),
            unet=_build_unet(),
            scheduler=EulerAncestralDiscreteScheduler(timestep_spacing="trailing", beta_schedule="scaled_linear"),
            force_zeros_for_empty_prompt=True,
            add_watermarker=False,
        ).save_pretrained(folder)


def _build_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 1),
        attention_head_dim=(2, 2),
        use_linear_projection=True,
        cross_attention_dim=CROSS_WIDTH,
        addition_embed_type="text_time",
        addition_time_embed_dim=TIME_WIDTH,
        # Six numbers about the size, and the pooled prompt.
        projection_class_embeddings_input_dim=6 * TIME_WIDTH + TEXT_WIDTH,
    )


def build_ip_adapter(folder: Path, unet: UNet2DConditionModel, seed: int = 0) -> None:
    """Write an adapter for `unet` and its image encoder below `folder`.

    Load it with `load_ip_adapter(folder, subfolder="", weight_name=ADAPTER_WEIGHTS, local_files_only=True)`.
    """
    with seeded(seed):
        CLIPVisionModelWithProjection(
            CLIPVisionConfig(
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=1,
                num_attention_heads=2,
                image_size=32,
                patch_size=16,
                projection_dim=IMAGE_WIDTH,
            )
        ).save_pretrained(folder / "image_encoder")
        save_file(_adapter_weights(unet), folder / ADAPTER_WEIGHTS)


def _adapter_weights(unet: UNet2DConditionModel) -> dict[str, torch.Tensor]:
    weights = {
        "image_proj.proj.weight": torch.randn(IMAGE_TOKENS * CROSS_WIDTH, IMAGE_WIDTH),
        "image_proj.proj.bias": torch.zeros(IMAGE_TOKENS * CROSS_WIDTH),
        "image_proj.norm.weight": torch.ones(CROSS_WIDTH),
        "image_proj.norm.bias": torch.zeros(CROSS_WIDTH),
    }
    crossing = [name for name in unet.attn_processors if name.endswith("attn2.processor")]
    for number, name in enumerate(crossing):
        attention = unet.get_submodule(name.removesuffix(".processor"))
        for part in ("to_k", "to_v"):
            # Adapters count self-attentions as well: the odd numbers are the crossing ones.
            weights[f"ip_adapter.{2 * number + 1}.{part}_ip.weight"] = torch.randn(attention.inner_dim, CROSS_WIDTH)
    return weights


SDXL = Family("sdxl-turbo", "StableDiffusionXLPipeline", build_sdxl, {"guidance_scale": 0.0})
