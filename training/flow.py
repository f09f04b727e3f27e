"""Trains text encoder and transformer together by flow matching on noise-tied scenes."""

from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLFlux2, Flux2Transformer2DModel
from torch import Tensor, nn
from tqdm import tqdm
from transformers import Qwen2Tokenizer, Qwen3ForCausalLM

from training import walk
from training.fast import fast_predict, rotary
from training.model import embed_prompt
from training.optim import Average, Schedule
from training.pool import REFERENCE_COUNTS, Shard, join, make_shards
from training.tasks import KINDS

LEARNING_RATE = 3e-3
FIRST_POOL = 24_000


@dataclass(frozen=True, slots=True)
class FlowPlan:
    """How long and how wide; batch is by number of references (0, 1, 2)."""

    steps: int
    learning_rate: float = LEARNING_RATE
    batch: tuple[int, int, int] = (48, 14, 6)
    ema: float = 0.998
    first_pool: int = FIRST_POOL
    fresh_samples: int = 4_000  # joins the pool every `fresh_every` steps
    fresh_every: int = 500
    pool_shards: int = 14  # the oldest leave
    save_every: int = 250
    seed: int = 0
    decay_share: float = 0.6
    compiled: bool = True


class FlowTrainer:
    """Holds what one training run needs; `run` goes on from the checkpoint, if there is one."""

    def __init__(
        self,
        vae: AutoencoderKLFlux2,
        tokenizer: Qwen2Tokenizer,
        text_encoder: Qwen3ForCausalLM,
        transformer: Flux2Transformer2DModel,
        plan: FlowPlan,
        checkpoint: Path,
    ) -> None:
        self.vae, self.tokenizer, self.plan, self.checkpoint = vae, tokenizer, plan, checkpoint
        self.text_encoder, self.transformer = text_encoder, transformer
        self.device = transformer.device
        self.modules: dict[str, nn.Module] = {
            "text_encoder": text_encoder,
            "transformer": transformer,
        }
        self.schedule = Schedule(self.modules.values(), plan.learning_rate, plan.steps, plan.decay_share)
        self.average = Average(self.modules, plan.ema)
        self.rotations = {n: rotary(transformer, n) for n in REFERENCE_COUNTS}
        self.predict: Any = fast_predict
        self.embed: Any = embed_prompt
        text_encoder.config._attn_implementation = "eager"  # its backward is faster when short
        if plan.compiled:
            self.predict = torch.compile(fast_predict, dynamic=False)
            self.embed = torch.compile(embed_prompt, dynamic=False)
        self.pool: dict[int, list[Shard]] = defaultdict(list)
        self.walks: dict[int, walk.Walk] = {}
        self.step = 0
        self.stop_at = plan.steps  # earlier for a run in parts; the schedule stays the plan's

    def run(self) -> None:
        """Train to the last step of the plan, with checkpoints on the way."""
        self._load()
        self._fill_pool()
        bar = tqdm(total=self.plan.steps, initial=self.step, desc="flow", mininterval=10)
        losses: dict[str, float] = {}
        while self.step < self.stop_at:
            for name, value in self._train_step().items():
                losses[name] = 0.98 * losses.get(name, value) + 0.02 * value
            self.average.update(self.modules, self.step)
            self.step += 1
            bar.update()
            if self.step % self.plan.save_every == 0:
                print("\n", self.step, {k: round(v, 3) for k, v in sorted(losses.items())}, flush=True)
                self._save()
            if self.step % self.plan.fresh_every == 0:
                self._fill_pool()
        self._save()

    def _train_step(self) -> dict[str, float]:
        """One update on samples at all stages of their walks; errors of first and last steps."""
        generator = torch.Generator().manual_seed(self.plan.seed * 1_000_003 + self.step)
        for n, count in zip(REFERENCE_COUNTS, self.plan.batch, strict=True):
            if n not in self.walks:
                self.walks[n] = walk.start(self.joined[n], count, generator)
            walk.renew(self.walks[n], self.joined[n], generator)
        with torch.autocast(self.device.type, torch.bfloat16):
            ids = torch.cat([w.ids for w in self.walks.values()])
            prompts = self.embed(self.text_encoder, ids.to(self.device)).split(self.plan.batch)
        report: dict[str, float] = {}
        losses = []
        for (n, walking), prompt in zip(self.walks.items(), prompts, strict=True):
            velocity = self._velocity(walking, prompt, n)
            errors = walk.errors(walking, velocity)
            # Weighted by t: between errors of the velocity (1) and of the picture (t squared).
            losses.append((errors * walking.t).sum() / sum(self.plan.batch))
            picture_errors = (errors * walking.t**2).detach()
            for t, stage in ((1.0, ""), (walk.STRIDE, " last")):
                for index in set(walking.kind[walking.t == t].tolist()):
                    chosen = (walking.t == t) & (walking.kind == index)
                    report[KINDS[index] + stage] = picture_errors[chosen].mean().item()
            walk.advance(walking, velocity.detach().cpu(), generator)
        torch.stack(losses).sum().backward()
        self.schedule.step(self.step)
        return report

    def _velocity(self, walking: walk.Walk, prompt: Tensor, references: int) -> Tensor:
        velocity: Tensor = self.predict(
            self.transformer,
            walking.state.to(self.device),
            walking.references.to(self.device),
            prompt,
            walking.t.to(self.device),
            self.rotations[references],
        )
        return velocity.cpu()

    def _fill_pool(self) -> None:
        """The shards that a run at this step has: the same ones after a restart."""
        plan = self.plan
        last = self.step // plan.fresh_every
        have = getattr(self, "made_until", max(-1, last - plan.pool_shards))
        for index in range(have + 1, last + 1):
            size = plan.first_pool if index == 0 else plan.fresh_samples
            for n, shard in self._shards(index, size).items():
                self.pool[n] = [*self.pool[n], shard][-plan.pool_shards :]
        self.made_until = last
        self.joined = {n: join(shards) for n, shards in self.pool.items()}

    def _shards(self, index: int, size: int) -> dict[int, Shard]:
        """Shard `index` by number of references, made once and kept beside the checkpoint."""
        kept = self.checkpoint.with_name(f"shard-{self.plan.seed + index:04d}.pt")
        if not kept.exists():
            made = make_shards(self.vae, self.tokenizer, size, self.plan.seed + index)
            torch.save({n: asdict(shard) for n, shard in made.items()}, kept)
        return {n: Shard(**fields) for n, fields in torch.load(kept).items()}

    def _save(self) -> None:
        state = {
            "step": self.step,
            "trained": {name: m.state_dict() for name, m in self.modules.items()},
            "average": {name: m.state_dict() for name, m in self.average.modules.items()},
            "optimizers": self.schedule.state_dict(),
            "walks": {n: walk.state_of(walking) for n, walking in self.walks.items()},
        }
        fresh = self.checkpoint.with_suffix(".new")
        torch.save(state, fresh)
        fresh.replace(self.checkpoint)

    def _load(self) -> None:
        if not self.checkpoint.exists():
            return
        state = torch.load(self.checkpoint, map_location=self.device)
        self.step = int(state["step"])
        for name, module in self.modules.items():
            module.load_state_dict(state["trained"][name])
            self.average.modules[name].load_state_dict(state["average"][name])
        self.schedule.load_state_dict(state["optimizers"])
        for n, fields in state.get("walks", {}).items():
            self.walks[n] = walk.Walk(**{name: value.cpu() for name, value in fields.items()})
