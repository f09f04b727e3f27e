"""The untrained text encoder and transformer, and the shared forward pass of training."""

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, Flux2Transformer2DModel
from torch import Tensor
from transformers import Qwen3Config, Qwen3ForCausalLM

from training.tokenizer import PROMPT_TOKENS

TEXT_WIDTH = 96
TEXT_LAYERS = (1, 2, 3)  # hidden states that the pipeline must be told to read
TOKEN_CHANNELS = 16
GRID = 8  # tokens a side
TOKENS = GRID * GRID


def build_text_encoder(vocabulary: int) -> Qwen3ForCausalLM:
    """Three small Qwen3 layers; its three hidden states side by side are the prompt embedding."""
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=TEXT_WIDTH,
        intermediate_size=2 * TEXT_WIDTH,
        num_hidden_layers=len(TEXT_LAYERS),
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=TEXT_WIDTH // 4,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        eos_token_id=0,
        pad_token_id=0,
        bos_token_id=None,
        initializer_range=0.05,
    )
    return Qwen3ForCausalLM(config)


def build_transformer(heads: int = 6, double: int = 1, single: int = 5) -> Flux2Transformer2DModel:
    """Flux 2 in miniature. A short rotary base: positions here run to 8, not to 128."""
    return Flux2Transformer2DModel(
        patch_size=1,
        in_channels=TOKEN_CHANNELS,
        num_layers=double,
        num_single_layers=single,
        attention_head_dim=32,
        num_attention_heads=heads,
        joint_attention_dim=len(TEXT_LAYERS) * TEXT_WIDTH,
        timestep_guidance_channels=64,
        mlp_ratio=2.0,
        axes_dims_rope=(4, 12, 12, 4),
        rope_theta=40,
        guidance_embeds=False,
    )


def build_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """Straight, unshifted sigmas: with n steps 1, 1 - 1/n … 1/n, 0."""
    return FlowMatchEulerDiscreteScheduler(shift=1.0, use_dynamic_shifting=False)


def embed_prompt(text_encoder: Qwen3ForCausalLM, ids: Tensor) -> Tensor:
    """Token ids (n, PROMPT_TOKENS), 0 is padding, to prompt embeddings (n, PROMPT_TOKENS, 288)."""
    out = text_encoder.model(
        input_ids=ids, attention_mask=(ids != 0).long(), output_hidden_states=True, use_cache=False
    )
    return torch.cat([out.hidden_states[layer] for layer in TEXT_LAYERS], dim=-1)


def position_ids(references: int) -> tuple[Tensor, Tensor]:
    """Image ids ((1 + references) · 64, 4) and text ids (PROMPT_TOKENS, 4), as in the pipeline."""
    span = torch.arange(GRID)
    grids = [
        torch.cartesian_prod(torch.tensor([10 * index]), span, span, torch.arange(1)) for index in range(references + 1)
    ]
    zero = torch.arange(1)
    return torch.cat(grids), torch.cartesian_prod(zero, zero, zero, torch.arange(PROMPT_TOKENS))


def predict(
    transformer: Flux2Transformer2DModel,
    noisy: Tensor,
    references: Tensor,
    prompt: Tensor,
    t: Tensor,
) -> Tensor:
    """Velocity (n, 64, 16) of noisy tokens (n, 64, 16) at times t (n,), 1 = pure noise.

    References are (n, 64·count, 16), count 0 to 2; prompt is what `embed_prompt` gives.
    """
    image_ids, text_ids = position_ids(references.shape[1] // TOKENS)
    out = transformer(
        hidden_states=torch.cat([noisy, references], dim=1),
        timestep=t,
        guidance=None,
        encoder_hidden_states=prompt,
        txt_ids=text_ids,
        img_ids=image_ids,
        return_dict=False,
    )[0]
    return out[:, :TOKENS]
