"""Z-Image: no references; its image-to-image pipeline shares every part and starts from one picture."""

from __future__ import annotations

from pathlib import Path

from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    ZImageImg2ImgPipeline,
    ZImagePipeline,
    ZImageTransformer2DModel,
)

from tests.infer.families.family import Family, amplify, seeded
from tests.infer.families.text import build_qwen3, build_qwen_tokenizer
from tests.infer.families.vae import build_vae

TEXT_WIDTH = 16
LATENT_CHANNELS = 16


def build_z_image(folder: Path, seed: int = 0) -> None:
    """Write a Z-Image-Turbo below `folder`."""
    with seeded(seed):
        ZImagePipeline(**_parts()).save_pretrained(folder)


def build_z_image_img2img(folder: Path, seed: int = 0) -> None:
    """Write the same parts under the name of the image-to-image pipeline."""
    with seeded(seed):
        ZImageImg2ImgPipeline(**_parts()).save_pretrained(folder)


def _parts() -> dict[str, object]:
    tokenizer = build_qwen_tokenizer()
    vae: AutoencoderKL = build_vae(LATENT_CHANNELS, scaling_factor=0.3611, shift_factor=0.1159)
    return {
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
        "vae": vae,
        # The pipeline reads the last layer but one and drops the padding.
        "text_encoder": build_qwen3(len(tokenizer), 3, TEXT_WIDTH).model,
        "tokenizer": tokenizer,
        "transformer": amplify(
            ZImageTransformer2DModel(
                in_channels=LATENT_CHANNELS,
                dim=32,
                n_layers=1,
                n_refiner_layers=1,
                n_heads=2,
                n_kv_heads=2,
                cap_feat_dim=TEXT_WIDTH,
                axes_dims=[4, 6, 6],
                # The first axis counts caption tokens, the picture comes after them.
                axes_lens=[1024, 64, 64],
            )
        ),
    }


Z_IMAGE = Family("z-image", "ZImagePipeline", build_z_image, {"guidance_scale": 0.0})
Z_IMAGE_IMG2IMG = Family(
    "z-image-img2img",
    "ZImageImg2ImgPipeline",
    build_z_image_img2img,
    {"guidance_scale": 0.0, "strength": 0.5},
    max_references=1,
    needs_reference=True,
)
