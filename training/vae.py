"""Trains the picture codec: 64 × 64 px to 8 × 8 tokens of 16 numbers and back."""

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLFlux2
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from training.optim import Schedule
from training.render import render
from training.tasks import KINDS, make_task

LATENT_CHANNELS = 4
BATCH = 32
LEARNING_RATE = 4e-3
KL_WEIGHT = 5e-4
NOISE_SHARE = 0.25  # of a latent's spread; the decoder forgives this much error


def build_vae() -> AutoencoderKLFlux2:
    """Three blocks: 4 px a latent, 8 px a token once packed 2 × 2."""
    return AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(48, 48, 48),
        decoder_block_out_channels=(16, 32, 64),
        layers_per_block=0,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=4,
        sample_size=64,
        mid_block_add_attention=False,
    )


def to_pixels(pictures: np.ndarray, device: torch.device | None = None) -> Tensor:
    """(n, 64, 64, 3) bytes to (n, 3, 64, 64) in -1..1, channels last."""
    tensor = torch.from_numpy(pictures).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
    return tensor.contiguous(memory_format=torch.channels_last)


def draw_pictures(count: int, seed: int) -> np.ndarray:
    """(count, 64, 64, 3) bytes: every kind in equal parts, answers and references."""
    rng = np.random.default_rng(seed)
    pictures: list[np.ndarray] = []
    while len(pictures) < count:
        for kind in KINDS:
            task = make_task(kind, rng)
            pictures.append(render(task.scene))
            pictures.extend(reference.picture for reference in task.references)
    return np.stack(pictures[:count])


def vae_loss(vae: AutoencoderKLFlux2, pixels: Tensor, train_encoder: bool) -> tuple[Tensor, Tensor]:
    """(loss, mean squared error on 0..1): L1, MSE and a faint KL, decoded from noised latents."""
    with torch.set_grad_enabled(train_encoder):
        posterior = vae.encode(pixels).latent_dist
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        spread = mean.std(dim=(0, 2, 3), keepdim=True).detach()
    level = torch.rand((len(pixels), 1, 1, 1), device=pixels.device) * NOISE_SHARE
    latents = mean + level * spread * torch.randn_like(mean)
    decoded = vae.decode(latents).sample.float()
    mse = F.mse_loss(decoded, pixels)
    kl = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).mean()
    weight = KL_WEIGHT if train_encoder else 0.0
    return F.l1_loss(decoded, pixels) + 2 * mse + weight * kl, mse.detach() / 4


@torch.no_grad()
def measure_latents(vae: AutoencoderKLFlux2, pictures: np.ndarray) -> None:
    """Fill the codec's running mean and variance (16,) with those of packed latents."""
    packed = []
    for start in range(0, len(pictures), 256):
        pixels = to_pixels(pictures[start : start + 256], vae.device)
        mean = vae.encode(pixels).latent_dist.mean
        packed.append(F.pixel_unshuffle(mean, 2))
    everything = torch.cat(packed)
    vae.bn.running_mean.copy_(everything.mean(dim=(0, 2, 3)))
    vae.bn.running_var.copy_(everything.var(dim=(0, 2, 3)))


def train_vae(
    vae: AutoencoderKLFlux2,
    steps: int,
    pool: int,
    checkpoint: Path,
    seed: int = 0,
    train_encoder: bool = True,
    lr: float = LEARNING_RATE,
) -> None:
    """Train in place; resumes from the checkpoint, which holds weights, optimizers and the step."""
    torch.manual_seed(seed)
    vae.train().to(memory_format=torch.channels_last)
    vae.bn.eval()
    trained = [vae] if train_encoder else [vae.decoder, vae.post_quant_conv]
    schedule = Schedule(trained, lr, steps)
    begin = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, map_location=vae.device)
        vae.load_state_dict(saved["vae"])
        schedule.load_state_dict(saved["optimizers"])
        begin = int(saved["step"])
    pictures = draw_pictures(pool, seed)
    bar = tqdm(range(begin, steps), initial=begin, total=steps, desc="vae", mininterval=5)
    drift = 0.02
    for step in bar:
        rng = np.random.default_rng((seed, step))
        pixels = to_pixels(pictures[rng.integers(0, len(pictures), BATCH)], vae.device)
        with torch.autocast(vae.device.type, torch.bfloat16):
            loss, mse = vae_loss(vae, pixels, train_encoder)
        loss.backward()
        schedule.step(step)
        drift = 0.98 * drift + 0.02 * mse.item()
        if step % 50 == 0:
            bar.set_postfix(dB=f"{-10 * np.log10(drift):.1f}")
        if step % 500 == 499 or step == steps - 1:
            state = {"vae": vae.state_dict(), "optimizers": schedule.state_dict(), "step": step + 1}
            torch.save(state, checkpoint)
    vae.eval()
    if train_encoder:
        measure_latents(vae, pictures[:4096])
        torch.save(
            {"vae": vae.state_dict(), "optimizers": schedule.state_dict(), "step": steps},
            checkpoint,
        )
