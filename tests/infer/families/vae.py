"""The plain autoencoder that three families share: 8 pixels a latent, as in the real models."""

from __future__ import annotations

from typing import Any

from diffusers import AutoencoderKL

BLOCKS = 4


def build_vae(latent_channels: int, **config: Any) -> AutoencoderKL:
    """An AutoencoderKL of four blocks of eight channels."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * BLOCKS,
        up_block_types=("UpDecoderBlock2D",) * BLOCKS,
        block_out_channels=(8,) * BLOCKS,
        layers_per_block=1,
        latent_channels=latent_channels,
        norm_num_groups=4,
        sample_size=64,
        mid_block_add_attention=False,
        **config,
    )
