"""The codec's gate: right pictures must still be right after encoding and decoding.

The codec is the ceiling of everything after it, so no long training starts before it passes.
"""

import numpy as np
import torch
from diffusers import AutoencoderKLFlux2

from training.checker import judge
from training.render import render
from training.tasks import KINDS, make_task
from training.vae import to_pixels

GATE = 0.97
# Not kinds that the bars are about, and harder on 4 latents: measured, not gated.
UNGATED = ("pattern", "style")


@torch.no_grad()
def through(vae: AutoencoderKLFlux2, pictures: np.ndarray) -> np.ndarray:
    """Pictures (n, 64, 64, 3) encoded and decoded."""
    pixels = to_pixels(pictures, vae.device)
    decoded = vae.decode(vae.encode(pixels).latent_dist.mean).sample
    shown = ((decoded.clamp(-1, 1) + 1) * 127.5 + 0.5).byte()
    return np.ascontiguousarray(shown.permute(0, 2, 3, 1).cpu().numpy())


def gate_rates(vae: AutoencoderKLFlux2, count: int = 100, seed: int = 5) -> dict[str, float]:
    """Share of ground-truth pictures of each kind that are judged right after the codec."""
    rates = {}
    for kind in KINDS:
        rng = np.random.default_rng((seed, KINDS.index(kind)))
        tasks = [make_task(kind, rng) for _ in range(count)]
        pictures = through(vae, np.stack([render(task.scene) for task in tasks]))
        verdicts = [judge(p, t.request, t.scene) for p, t in zip(pictures, tasks, strict=True)]
        rates[kind] = float(np.mean([verdict.right for verdict in verdicts]))
    return rates


def require_gate(vae: AutoencoderKLFlux2) -> dict[str, float]:
    """The rates; raises ValueError when a gated kind is below GATE."""
    rates = gate_rates(vae)
    low = {kind: rate for kind, rate in rates.items() if rate < GATE and kind not in UNGATED}
    if low:
        raise ValueError(f"the codec spoils right pictures, train it longer: {low}")
    return rates
