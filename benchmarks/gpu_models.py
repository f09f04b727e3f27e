"""klein-4B's shapes with random weights, made where they are used: how long a picture takes does not depend on them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

TOKENIZER = Path(__file__).parents[1] / "umrgen_infer" / "tiny_klein" / "tokenizer"
"""Any will do: every prompt is padded to the same number of tokens."""
HEAD = 128
KLEIN_4B: dict[str, Any] = {
    "transformer": {"num_layers": 5, "num_single_layers": 20, "num_attention_heads": 24, "attention_head_dim": HEAD},
    "text": {
        "vocab_size": 151936,
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": HEAD,
        "max_position_embeddings": 40960,
    },
    "vae": {},
    "rope": (32, 32, 32, 32),
    "latents": 32,
}
"""3.88 billion parameters in the transformer and 4.02 in the text encoder, of which 27 of 36 layers are read."""
TINY: dict[str, Any] = {
    "transformer": {"num_layers": 1, "num_single_layers": 2, "num_attention_heads": 4, "attention_head_dim": 16},
    "text": {
        "vocab_size": 8192,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 36,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 1024,
    },
    "vae": {"block_out_channels": (8, 8, 8, 8), "layers_per_block": 1, "norm_num_groups": 4, "latent_channels": 4},
    "rope": (4, 4, 4, 4),
    "latents": 4,
}
"""For a processor: the same code on a thousandth of the work. Its figures say nothing of a GPU's."""


def build_pipeline(shapes: dict[str, Any], device: str, dtype: torch.dtype, seed: int = 0) -> Any:
    """The same weights for the same seed."""
    parts: Any = diffusers
    torch.manual_seed(seed)
    text = Qwen3Config(**shapes["text"], rms_norm_eps=1e-6, tie_word_embeddings=True)
    with torch.device(device), _default_dtype(dtype):
        transformer = parts.Flux2Transformer2DModel(
            in_channels=4 * shapes["latents"],
            joint_attention_dim=3 * text.hidden_size,
            axes_dims_rope=shapes["rope"],
            guidance_embeds=False,
            **shapes["transformer"],
        )
        encoder: Any = Qwen3ForCausalLM(text)
        vae = parts.AutoencoderKLFlux2(**shapes["vae"])
    scheduler = parts.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER, local_files_only=True)
    pipeline = parts.Flux2KleinPipeline(scheduler, vae.eval(), encoder.eval(), tokenizer, transformer.eval(), True)  # noqa: FBT003
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device, dtype)


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def count_step_flops(pipeline: Any, arguments: dict[str, Any]) -> int:
    """Floating-point operations of one denoising step, counted while it runs: two for each multiplication."""
    denoiser = pipeline.transformer
    forward, counter = denoiser.forward, FlopCounterMode(display=False)

    def counted(*given: Any, **named: Any) -> Any:
        with counter:
            return forward(*given, **named)

    denoiser.forward = counted
    try:
        pipeline(**{**arguments, "num_inference_steps": 1, "output_type": "latent"})
    finally:
        del denoiser.forward
    return int(counter.get_total_flops())
