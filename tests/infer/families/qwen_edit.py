"""Qwen-Image-Edit: references are required, read by a vision language model and painted beside the picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from diffusers import (
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    QwenImageEditPlusPipeline,
    QwenImageTransformer2DModel,
)
from transformers import (
    ProcessorMixin,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen2VLImageProcessorPil,
    Qwen2VLProcessor,
)

from tests.infer.families.family import Family, amplify, seeded
from tests.infer.families.text import build_qwen_tokenizer

TEXT_WIDTH = 16
LATENT_CHANNELS = 16
PATCH_PX = 14


class PictureProcessor(Qwen2VLProcessor):
    """Qwen2-VL's processor for text and pictures only: its video part alone needs torchvision."""

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: Any = None, **_: Any) -> None:
        self.image_token, self.video_token = "<|image_pad|>", "<|video_pad|>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)


def build_qwen_edit(folder: Path, seed: int = 0) -> None:
    """Write a Qwen-Image-Edit-2511 below `folder`. Load it with `processor=load_processor(folder)`."""
    with seeded(seed):
        tokenizer = build_qwen_tokenizer()
        QwenImageEditPlusPipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0, use_dynamic_shifting=True),
            vae=AutoencoderKLQwenImage(base_dim=4, z_dim=LATENT_CHANNELS, dim_mult=[1, 2, 2, 2], num_res_blocks=1),
            text_encoder=_build_text_encoder(tokenizer),
            tokenizer=tokenizer,
            processor=PictureProcessor(Qwen2VLImageProcessorPil(), tokenizer),
            transformer=amplify(
                QwenImageTransformer2DModel(
                    in_channels=4 * LATENT_CHANNELS,
                    out_channels=LATENT_CHANNELS,
                    num_layers=1,
                    attention_head_dim=16,
                    num_attention_heads=2,
                    joint_attention_dim=TEXT_WIDTH,
                    axes_dims_rope=(4, 6, 6),
                    # The 2511 release modulates the references as if they were at time zero.
                    zero_cond_t=True,
                )
            ),
        ).save_pretrained(folder)
        _name_the_stock_processor(folder)


def _name_the_stock_processor(folder: Path) -> None:
    """Hub repositories name the class of transformers, and diffusers imports whatever module the index names."""
    for path, key, name in (
        (folder / "model_index.json", "processor", ["transformers", Qwen2VLProcessor.__name__]),
        (folder / "processor" / "processor_config.json", "processor_class", Qwen2VLProcessor.__name__),
    ):
        tree = json.loads(path.read_text())
        tree[key] = name
        path.write_text(json.dumps(tree, indent=2))


def load_processor(folder: Path) -> PictureProcessor:
    """The processor of a pipeline's folder, without its video part."""
    return PictureProcessor.from_pretrained(folder / "processor", local_files_only=True)


def _build_text_encoder(tokenizer: Qwen2Tokenizer) -> Qwen2_5_VLForConditionalGeneration:
    names = {"vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>"}
    names |= {"image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>"}
    return Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(
            text_config={
                "vocab_size": len(tokenizer),
                "hidden_size": TEXT_WIDTH,
                "intermediate_size": 32,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "num_key_value_heads": 2,
                "max_position_embeddings": 4096,
                "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [1, 1, 2]},
                "initializer_range": 0.3,
            },
            vision_config={
                "depth": 1,
                "hidden_size": 16,
                "intermediate_size": 32,
                "num_heads": 2,
                "patch_size": PATCH_PX,
                "window_size": 8 * PATCH_PX,
                "fullatt_block_indexes": [0],
                "out_hidden_size": TEXT_WIDTH,
                "initializer_range": 0.3,
            },
            tie_word_embeddings=True,
            **{key: tokenizer.convert_tokens_to_ids(token) for key, token in names.items()},
        )
    )


QWEN_EDIT = Family(
    "qwen-edit",
    "QwenImageEditPlusPipeline",
    build_qwen_edit,
    {"true_cfg_scale": 1.0},
    max_references=2,
    needs_reference=True,
)
