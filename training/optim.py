"""Muon for matrices and kernels, AdamW for the rest, one schedule; and the running average."""

import copy
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn


def orthogonalised(stack: Tensor, steps: int = 5) -> Tensor:
    """Nearest semi-orthogonal matrices of a stack (n, rows, columns), by Newton-Schulz in bf16."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = stack.bfloat16()
    tall = x.size(-2) > x.size(-1)
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).to(stack.dtype)


class Muon(torch.optim.Optimizer):
    """Momentum whose matrix updates are orthogonalised; update RMS matched to AdamW's (0.2).

    Kernels count as matrices (out, in·h·w). Equal shapes are orthogonalised in one batch.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update; parameters without a gradient are left alone."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["momentum"] = torch.zeros_like(p)
                state["momentum"].lerp_(p.grad, 1 - group["momentum"])
                update = p.grad.lerp(state["momentum"], group["momentum"]).flatten(1)
                by_shape[update.shape].append((p, update))
            for shape, pairs in by_shape.items():
                updates = orthogonalised(torch.stack([update for _, update in pairs]))
                scale = group["lr"] * 0.2 * max(shape) ** 0.5
                for (p, _), update in zip(pairs, updates, strict=True):
                    p.add_(update.view_as(p), alpha=-scale)


class Schedule:
    """Both optimizers, with linear warm-up and a decay to zero over the last share of the steps."""

    def __init__(self, modules: Iterable[nn.Module], lr: float, steps: int, decay_share: float = 1.0) -> None:
        named = [(n, p) for m in modules for n, p in m.named_parameters() if p.requires_grad]
        matrices = [p for n, p in named if p.ndim >= 2 and "embed_tokens" not in n]
        others = [p for n, p in named if p.ndim < 2 or "embed_tokens" in n]
        self.optimizers: list[torch.optim.Optimizer] = [
            Muon(matrices, lr),
            torch.optim.AdamW(others, lr, betas=(0.9, 0.98), weight_decay=0.0),
        ]
        self.lr, self.steps, self.decay_share = lr, steps, decay_share

    def rate(self, step: int) -> float:
        """Learning rate at a step, 0 ≤ step < steps."""
        warm = min(1.0, (step + 1) / 50)
        left = (self.steps - step) / (self.steps * self.decay_share)
        return self.lr * warm * min(1.0, left)

    def step(self, step: int) -> None:
        """Apply the gradients at this step's rate and clear them."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.rate(step)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> list[dict[str, Any]]:
        """Of both optimizers."""
        return [optimizer.state_dict() for optimizer in self.optimizers]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        """Of both optimizers."""
        for optimizer, state in zip(self.optimizers, states, strict=True):
            optimizer.load_state_dict(state)


class Average:
    """Exponential moving average of modules' weights: what is shipped."""

    def __init__(self, modules: dict[str, nn.Module], decay: float) -> None:
        self.modules = {name: copy.deepcopy(m).requires_grad_(False) for name, m in modules.items()}
        self.decay = decay

    @torch.no_grad()
    def update(self, modules: dict[str, nn.Module], step: int) -> None:
        """Move towards the trained weights; faster at the start."""
        decay = min(self.decay, (step + 1) / (step + 10))
        for name, module in modules.items():
            ours: list[Tensor] = list(self.modules[name].parameters())
            theirs: list[Tensor] = list(module.parameters())
            torch._foreach_lerp_(ours, theirs, 1 - decay)
