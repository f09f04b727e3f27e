"""Ties the initial noise to the whims: what the prompt leaves open, the noise decides.

The mean of channel j over all tokens, times 8, is N(0, 1) in true noise; its normal CDF is whim j.
Training draws whims first and sets those means, which leaves the noise exactly N(0, 1).
"""

import torch
from torch import Tensor

from training.model import TOKENS


def noise_for(whims: Tensor, noise: Tensor) -> Tensor:
    """Noise (n, 64, 16) with its channel means moved to mean what the whims (n, k) say."""
    count = whims.shape[1]
    wanted = torch.special.ndtri(whims.double()).float() / TOKENS**0.5
    tied = noise.clone()
    tied[..., :count] += (wanted - noise[..., :count].mean(1))[:, None]
    return tied


def whims_of(noise: Tensor, count: int) -> Tensor:
    """The whims (n, count) in (0, 1) that noise (n, 64, 16) stands for."""
    return torch.special.ndtr(noise[..., :count].mean(1) * TOKENS**0.5)
