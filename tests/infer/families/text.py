"""Tokenizers that know single bytes only, and the small text encoders behind them."""

from __future__ import annotations

from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    CLIPTextConfig,
    CLIPTokenizer,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

END = "<|endoftext|>"
QWEN_SPECIALS = (
    END, "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"
)  # fmt: skip
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
T5_END_ID = 1


def byte_characters() -> list[str]:
    """The 256 printable stand-ins that byte-level BPE uses, in an order that never changes."""
    return sorted(ByteLevel.alphabet())


def build_qwen_tokenizer(max_length: int = 4096) -> Qwen2Tokenizer:
    """A token for each byte and for each special token of the Qwen family."""
    tokens = [*QWEN_SPECIALS, *byte_characters()]
    tokenizer = Qwen2Tokenizer(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=[],
        additional_special_tokens=list(QWEN_SPECIALS[1:]),
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.model_max_length = max_length
    return tokenizer


def build_qwen3(vocabulary: int, layers: int, width: int = 16) -> Qwen3ForCausalLM:
    """As deep as the pipeline's default layers demand, and no wider than it must be."""
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=vocabulary,
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=layers,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=8,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
            # The usual 0.02 leaves a narrow encoder's layers all but equal.
            initializer_range=0.3,
        )
    )


def build_clip_tokenizer() -> CLIPTokenizer:
    """Each byte twice, inside a word and at its end, as CLIP's vocabulary has it."""
    inside = byte_characters()
    tokens = [*inside, *(character + "</w>" for character in inside), "<|startoftext|>", END]
    return CLIPTokenizer(vocab={token: index for index, token in enumerate(tokens)}, merges=[], model_max_length=77)


def clip_text_config(tokenizer: CLIPTokenizer, width: int = 16) -> CLIPTextConfig:
    """Settings shared by CLIPTextModel and CLIPTextModelWithProjection."""
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=77,
        projection_dim=width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def build_t5_tokenizer() -> T5Tokenizer:
    """A unigram model of the printable ASCII characters, all equally likely."""
    characters = [chr(code) for code in range(33, 127)]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((piece, -4.0) for piece in ("▁", *characters))]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=512)


def build_t5(vocabulary: int, width: int = 16) -> T5EncoderModel:
    """Two layers of T5's encoder."""
    return T5EncoderModel(
        T5Config(
            vocab_size=vocabulary,
            d_model=width,
            d_kv=8,
            d_ff=2 * width,
            num_layers=2,
            num_heads=2,
            feed_forward_proj="gated-gelu",
            pad_token_id=0,
            eos_token_id=T5_END_ID,
        )
    )
