"""The training code: noise, the fast forward pass, determinism and resuming, in seconds."""

from dataclasses import replace
from pathlib import Path

import torch

from training import walk
from training.fast import fast_predict, rotary
from training.flow import FlowPlan, FlowTrainer
from training.model import build_text_encoder, build_transformer, predict
from training.noise import noise_for, whims_of
from training.pool import Shard
from training.tokenizer import build_tokenizer
from training.vae import build_vae, train_vae

TINY = FlowPlan(
    steps=4,
    batch=(3, 2, 1),
    first_pool=40,
    fresh_samples=40,
    fresh_every=2,
    pool_shards=2,
    compiled=False,
)


def test_noise_tied_to_uniform_whims_stays_standard_normal() -> None:
    generator = torch.Generator().manual_seed(0)
    whims = torch.rand((4000, 7), generator=generator)
    noise = noise_for(whims, torch.randn((4000, 64, 16), generator=generator))
    assert torch.allclose(whims_of(noise, 7), whims, atol=1e-3)
    flat = noise[:, :, :7].reshape(4000, -1)
    assert abs(flat.mean().item()) < 0.01 and abs(flat.var().item() - 1) < 0.01
    covariance = torch.cov(noise[:, :8, 0].T)
    assert (covariance - torch.eye(8)).abs().max() < 0.1


def test_the_fast_forward_pass_computes_what_the_stock_one_does() -> None:
    torch.manual_seed(0)
    transformer = build_transformer()
    prompt = torch.randn(2, 24, transformer.config.joint_attention_dim)
    for references in (0, 1, 2):
        noisy, shown = torch.randn(2, 64, 16), torch.randn(2, 64 * references, 16)
        t = torch.tensor([1.0, 0.25])
        with torch.no_grad():
            stock = predict(transformer, noisy, shown, prompt, t)
            rot = rotary(transformer, references)
            ours = fast_predict(transformer, noisy, shown, prompt, t, rot, torch.float32)
        assert torch.allclose(stock, ours, atol=1e-4)


def test_a_walk_under_a_perfect_model_ends_at_the_true_picture() -> None:
    generator = torch.Generator().manual_seed(0)
    shard = Shard(
        answer=torch.randn(50, 64, 16, generator=generator),
        references=torch.zeros(50, 0, 16),
        ids=torch.zeros(50, 3, 24, dtype=torch.short),
        whims=torch.rand(50, 7, generator=generator),
        kind=torch.zeros(50, dtype=torch.int8),
    )
    walking = walk.start(shard, 400, generator)
    seen = set()
    for _ in range(12):
        walk.renew(walking, shard, generator)
        assert ((walking.t > 0) & (walking.t <= 1)).all()
        seen |= set(walking.t[walking.t * 4 % 1 == 0].tolist())
        velocity = (walking.state - walking.answer) / walking.t.view(-1, 1, 1)
        assert walk.errors(walking, velocity).max() < 1e-6
        ending = walking.t == walk.STRIDE
        walk.advance(walking, velocity, generator)
        assert torch.allclose(walking.state[ending], walking.answer[ending], atol=1e-4)
    assert seen == {1.0, 0.75, 0.5, 0.25}


def _trained(folder: Path, plan: FlowPlan) -> torch.Tensor:
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    parts = (build_vae().eval(), tokenizer, build_text_encoder(len(tokenizer)))
    trainer = FlowTrainer(*parts, build_transformer(), plan, folder / "flow.pt")
    trainer.run()
    return trainer.average.modules["transformer"].x_embedder.weight.clone()


def test_training_is_deterministic_and_resumes_where_it_stopped(tmp_path: Path) -> None:
    whole = _trained(tmp_path / "whole", TINY)
    assert torch.equal(whole, _trained(tmp_path / "again", TINY))
    stopped = replace(TINY, steps=4)
    trainer_folder = tmp_path / "stopped"
    _stop_after(trainer_folder, stopped, 2)
    assert torch.equal(whole, _trained(trainer_folder, stopped))


def _stop_after(folder: Path, plan: FlowPlan, steps: int) -> None:
    """Train for some steps of the plan and leave a checkpoint, as an interrupted run does."""
    folder.mkdir()
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    parts = (build_vae().eval(), tokenizer, build_text_encoder(len(tokenizer)))
    trainer = FlowTrainer(*parts, build_transformer(), plan, folder / "flow.pt")
    trainer.stop_at = steps
    trainer.run()


def test_the_codec_learns_and_resumes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    vae = build_vae()
    before = vae.decoder.conv_out.weight.clone()
    train_vae(vae, 3, 40, tmp_path / "vae.pt")
    assert not torch.equal(before, vae.decoder.conv_out.weight)
    again = build_vae()
    train_vae(again, 3, 40, tmp_path / "vae.pt")
    assert torch.equal(vae.decoder.conv_out.weight, again.decoder.conv_out.weight)
