"""Ready-made training samples: latents, token ids and whims, in shards made from a seed."""

from dataclasses import dataclass

import numpy as np
import torch
from diffusers import AutoencoderKLFlux2
from torch import Tensor
from torch.nn import functional as F
from transformers import Qwen2Tokenizer

from training.captions import caption
from training.render import render
from training.request import WHIMS
from training.tasks import KINDS, REFERENCES_OF, SHARES, Task, make_task
from training.tokenizer import PROMPT_TOKENS
from training.vae import to_pixels

WORDINGS = 3  # captions per sample
REFERENCE_COUNTS = (0, 1, 2)


@dataclass(frozen=True, slots=True)
class Shard:
    """Samples with equally many references.

    answer (n, 64, 16) and references (n, 64·count, 16) bf16; ids (n, WORDINGS, PROMPT_TOKENS)
    int16; whims (n, len(WHIMS)) fp32; kind (n,) int8, an index of KINDS.
    """

    answer: Tensor
    references: Tensor
    ids: Tensor
    whims: Tensor
    kind: Tensor


def token_ids(tokenizer: Qwen2Tokenizer, prompts: list[str]) -> Tensor:
    """(n, PROMPT_TOKENS) as the pipeline makes them: chat template, cut, padded with 0."""
    rows = torch.zeros(len(prompts), PROMPT_TOKENS, dtype=torch.long)
    for row, prompt in zip(rows, prompts, strict=True):
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
        )
        ids = tokenizer(text)["input_ids"][:PROMPT_TOKENS]
        row[: len(ids)] = torch.tensor(ids)
    return rows


@torch.no_grad()
def encode(vae: AutoencoderKLFlux2, pictures: np.ndarray) -> Tensor:
    """(n, 64, 64, 3) bytes to normalised packed tokens (n, 64, 16), as the pipeline does."""
    parts = []
    mean = vae.bn.running_mean.view(1, -1, 1, 1)
    std = torch.sqrt(vae.bn.running_var.view(1, -1, 1, 1) + vae.config.batch_norm_eps)
    for start in range(0, len(pictures), 128):
        pixels = to_pixels(pictures[start : start + 128], vae.device)
        latent = vae.encode(pixels).latent_dist.mean
        packed = (F.pixel_unshuffle(latent, 2) - mean) / std
        parts.append(packed.flatten(2).transpose(1, 2).cpu())
    return torch.cat(parts)


def make_shards(vae: AutoencoderKLFlux2, tokenizer: Qwen2Tokenizer, count: int, seed: int) -> dict[int, Shard]:
    """About `count` samples in the shares of the kinds, by number of references."""
    rng = np.random.default_rng((seed, 7))
    by_references: dict[int, list[Task]] = {n: [] for n in REFERENCE_COUNTS}
    for kind, share in SHARES.items():
        tasks = [make_task(kind, rng) for _ in range(max(1, round(count * share)))]
        by_references[REFERENCES_OF.get(kind, 0)].extend(tasks)
    return {n: _shard(vae, tokenizer, tasks, n, rng) for n, tasks in by_references.items()}


def _shard(
    vae: AutoencoderKLFlux2,
    tokenizer: Qwen2Tokenizer,
    tasks: list[Task],
    references: int,
    rng: np.random.Generator,
) -> Shard:
    prompts = [caption(t.request, rng, held_out=False) for t in tasks for _ in range(WORDINGS)]
    shown = torch.zeros(len(tasks), 0, 16)
    if references:
        pictures = np.stack([reference.picture for t in tasks for reference in t.references])
        shown = encode(vae, pictures).reshape(len(tasks), -1, 16)
    return Shard(
        answer=encode(vae, np.stack([render(t.scene) for t in tasks])).bfloat16(),
        references=shown.bfloat16(),
        ids=token_ids(tokenizer, prompts).view(len(tasks), WORDINGS, PROMPT_TOKENS).short(),
        whims=torch.tensor([t.whims for t in tasks]).view(len(tasks), len(WHIMS)),
        kind=torch.tensor([KINDS.index(t.request.kind) for t in tasks], dtype=torch.int8),
    )


def join(shards: list[Shard]) -> Shard:
    """One shard of several with equally many references."""
    return Shard(*(torch.cat([getattr(s, name) for s in shards]) for name in Shard.__slots__))
