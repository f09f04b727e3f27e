"""Training samples that walk down the sampler's own path.

A sample starts at pure noise and moves on by the model's own prediction, one step of the 4-step
sampler for each training step that it takes part in. The target stays the true picture, so that
later steps learn to mend what earlier ones got wrong, not only to polish what is right already.
"""

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from training.noise import noise_for
from training.pool import Shard

STEPS = 4
STRIDE = 1 / STEPS
GO_ON = 0.62  # chance that a sample takes its next step, rather than leaving for a fresh one
ANYWHERE = 0.15  # share of fresh samples at any time on the straight path, for other step counts


@dataclass(slots=True)
class Walk:
    """A batch of samples with equally many references, each where its walk has come to.

    answer and state (n, 64, 16); references (n, 64·count, 16); ids (n, PROMPT_TOKENS); t (n,);
    kind (n,) index of KINDS; leaving (n,): to be replaced by a fresh sample.
    """

    answer: Tensor
    references: Tensor
    ids: Tensor
    kind: Tensor
    state: Tensor
    t: Tensor
    leaving: Tensor


def start(shard: Shard, count: int, generator: torch.Generator) -> Walk:
    """Fresh samples drawn from the shard."""
    rows = torch.randint(len(shard.kind), (count,), generator=generator)
    wording = torch.randint(shard.ids.shape[1], (count,), generator=generator)
    answer = shard.answer[rows].float()
    noise = noise_for(shard.whims[rows], torch.randn(answer.shape, generator=generator))
    strays = torch.rand(count, generator=generator) < ANYWHERE
    t = torch.where(strays, 0.02 + 0.98 * torch.rand(count, generator=generator), 1.0)
    return Walk(
        answer=answer,
        references=shard.references[rows].float(),
        ids=shard.ids[rows, wording].long(),
        kind=shard.kind[rows],
        state=torch.lerp(answer, noise, t.view(-1, 1, 1)),
        t=t,
        leaving=torch.zeros(count, dtype=torch.bool),
    )


def renew(walk: Walk, shard: Shard, generator: torch.Generator) -> None:
    """Put fresh samples where others leave."""
    fresh = start(shard, len(walk.t), generator)
    for field in fields(Walk):
        old, new = getattr(walk, field.name), getattr(fresh, field.name)
        leaving = walk.leaving.view(-1, *[1] * (old.ndim - 1))
        setattr(walk, field.name, torch.where(leaving, new, old) if field.name != "leaving" else old)
    walk.leaving = torch.zeros_like(walk.leaving)


@torch.no_grad()
def advance(walk: Walk, velocity: Tensor, generator: torch.Generator) -> None:
    """One sampler step along the predicted velocity (n, 64, 16); some samples then leave."""
    on_path = walk.t * STEPS == (walk.t * STEPS).round()
    walk.state = walk.state - STRIDE * velocity
    walk.t = walk.t - STRIDE
    stays = torch.rand(len(walk.t), generator=generator) < GO_ON
    walk.leaving = ~on_path | ~stays | (walk.t < STRIDE / 2)


def errors(walk: Walk, velocity: Tensor) -> Tensor:
    """Squared error of the velocity that leads to the true picture, per sample (n,)."""
    true = (walk.state - walk.answer) / walk.t.view(-1, 1, 1)
    return (velocity - true).square().mean((1, 2))


def state_of(walk: Walk) -> dict[str, Any]:
    """For a checkpoint."""
    return {field.name: getattr(walk, field.name) for field in fields(Walk)}
