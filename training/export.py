"""Saves and loads the pipeline in the layout of `Flux2KleinPipeline.save_pretrained`."""

import copy
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLFlux2, Flux2KleinPipeline, Flux2Transformer2DModel
from PIL import Image, ImageOps
from torch import nn
from transformers import Qwen2Tokenizer, Qwen3ForCausalLM

from training.model import TEXT_LAYERS, build_scheduler
from training.scene import NATIVE_PX
from training.tokenizer import PROMPT_TOKENS

SHIPPED = Path(__file__).parent.parent / "umrgen_infer" / "tiny_klein"
# What a caller passes besides prompt, image, generator and num_inference_steps.
CALL: dict[str, Any] = {
    "height": NATIVE_PX,
    "width": NATIVE_PX,
    "max_sequence_length": PROMPT_TOKENS,
    "text_encoder_out_layers": TEXT_LAYERS,
    "guidance_scale": 1.0,
}


def save_pipeline(
    folder: Path,
    vae: AutoencoderKLFlux2,
    tokenizer: Qwen2Tokenizer,
    text_encoder: Qwen3ForCausalLM,
    transformer: Flux2Transformer2DModel,
) -> None:
    """Write the weights as bf16 safetensors with their configurations."""

    def stored(module: Any) -> Any:
        return copy.deepcopy(module).to(torch.bfloat16).requires_grad_(False)

    pipe = Flux2KleinPipeline(
        scheduler=build_scheduler(),
        vae=stored(vae),
        text_encoder=stored(text_encoder),
        tokenizer=tokenizer,
        transformer=stored(transformer),
        is_distilled=True,
    )
    pipe.save_pretrained(folder, safe_serialization=True)


def load_pipeline(folder: Path = SHIPPED) -> Flux2KleinPipeline:
    """The unmodified pipeline, in fp32: bf16 on a CPU is for storage only."""
    pipe = Flux2KleinPipeline.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    for module in (pipe.vae, pipe.text_encoder, pipe.transformer):
        assert isinstance(module, nn.Module)
        module.eval()
    return pipe


def fit_reference(image: Image.Image) -> Image.Image:
    """Any image as the model wants it: whole, 64 × 64, padded with white."""
    size = (NATIVE_PX, NATIVE_PX)
    return ImageOps.pad(image.convert("RGB"), size, Image.Resampling.LANCZOS, color="white")


def paint(
    pipe: Flux2KleinPipeline,
    prompt: str,
    references: list[Image.Image] | None = None,
    seed: int = 0,
    steps: int = 4,
) -> Image.Image:
    """One picture, 64 × 64, exactly as the service asks for it."""
    images = [fit_reference(image) for image in references or []] or None
    generator = torch.Generator("cpu").manual_seed(seed)
    out = pipe(prompt=prompt, image=images, generator=generator, num_inference_steps=steps, **CALL)
    return out.images[0]
