"""Measures the shipped pipeline on held-out prompts: `python -m training.evaluate`.

Every picture is painted by the unmodified diffusers pipeline, as the service calls it, and judged
by the checker. Controls show that neither the checker nor the references are idle: the same
pictures against another task's request, and pictures painted with the wrong references.
"""

import argparse
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from diffusers import Flux2KleinPipeline
from PIL import Image
from tqdm import tqdm

from training.captions import caption
from training.checker import Verdict, judge
from training.export import SHIPPED, load_pipeline, paint
from training.layout import lay_out
from training.model import GRID, TOKEN_CHANNELS
from training.noise import whims_of
from training.palette import COLOURS
from training.photo import make_reference
from training.render import Picture
from training.report import as_markdown
from training.request import WHIMS
from training.scene import SHAPES, Scene
from training.tasks import KINDS, REFERENCES_OF, Task, make_task

SINGLE = ("one", "ref colour", "ref shape", "ref both")  # kinds that fill the confusion tables


@dataclass(slots=True)
class Score:
    """Of one kind: verdicts, and how many passed the controls."""

    verdicts: list[Verdict] = field(default_factory=list)
    wrong_request: list[bool] = field(default_factory=list)
    wrong_references: list[bool] = field(default_factory=list)

    def rate(self, attribute: str) -> float:
        """Share of pictures for which this attribute is right, 0..1."""
        return float(np.mean([getattr(verdict, attribute) for verdict in self.verdicts]))


@dataclass(slots=True)
class Evaluation:
    """Everything that the report shows."""

    steps: int
    count: int
    scores: dict[str, Score]
    shapes: Counter[tuple[str, str]]
    colours: Counter[tuple[str, str]]
    spread: float


def expected_scene(task: Task, seed: int) -> Scene:
    """The scene that this task means under the noise of this seed, as the pipeline draws it."""
    generator = torch.Generator("cpu").manual_seed(seed)
    noise = torch.randn((1, TOKEN_CHANNELS, GRID, GRID), generator=generator)
    whims = whims_of(noise.flatten(2).transpose(1, 2), len(WHIMS))[0].tolist()
    shown = [reference.thing for reference in task.references]
    return lay_out(task.request, shown, dict(zip(WHIMS, whims, strict=True)))


def _painted(pipe: Flux2KleinPipeline, prompt: str, task: Task, seed: int, steps: int) -> Picture:
    images = [Image.fromarray(reference.picture) for reference in task.references]
    return np.asarray(paint(pipe, prompt, images, seed, steps))


def _with_other_references(task: Task, rng: np.random.Generator) -> Task:
    """The same request shown references that it was not made for; two are swapped."""
    if len(task.references) == 2:
        return Task(task.request, task.references[::-1], task.whims, task.scene)
    for_shape = task.request.kind != "ref colour"
    other = (make_reference(rng, for_shape=for_shape),)
    return Task(task.request, other, task.whims, task.scene)


def evaluate_kind(
    pipe: Flux2KleinPipeline, kind: str, count: int, steps: int, seed: int
) -> tuple[Score, list[tuple[Scene, Verdict]]]:
    """Paint and judge `count` held-out prompts of one kind."""
    rng = np.random.default_rng((seed, KINDS.index(kind)))
    score = Score()
    pairs = []
    before: Task | None = None
    for index in tqdm(range(count), desc=kind, leave=False):
        task = make_task(kind, rng)
        prompt = caption(task.request, rng, held_out=True)
        noise_seed = seed * 100_000 + index
        picture = _painted(pipe, prompt, task, noise_seed, steps)
        truth = expected_scene(task, noise_seed)
        verdict = judge(picture, task.request, truth)
        score.verdicts.append(verdict)
        pairs.append((truth, verdict))
        if before is not None:
            other = judge(picture, before.request, expected_scene(before, noise_seed))
            score.wrong_request.append(other.right)
        if kind in REFERENCES_OF and index % 2 == 0:
            shown = _with_other_references(task, rng)
            picture = _painted(pipe, prompt, shown, noise_seed, steps)
            score.wrong_references.append(judge(picture, task.request, truth).right)
        before = task
    return score, pairs


def measure_spread(pipe: Flux2KleinPipeline, steps: int, prompts: int = 12, seeds: int = 5) -> float:
    """Mean pairwise RMS distance (0..1) of pictures of one prompt under different seeds."""
    rng = np.random.default_rng(99)
    distances = []
    for _ in range(prompts):
        prompt = f"a {rng.choice(COLOURS[:9])} {rng.choice(SHAPES)}"
        painted = [np.asarray(paint(pipe, prompt, None, seed, steps)) / 255 for seed in range(seeds)]
        for i, one in enumerate(painted):
            distances += [float(np.sqrt(((one - other) ** 2).mean())) for other in painted[:i]]
    return float(np.mean(distances))


def evaluate(pipe: Flux2KleinPipeline, count: int, steps: int, seed: int = 1) -> Evaluation:
    """All kinds."""
    scores: dict[str, Score] = {}
    shapes: Counter[tuple[str, str]] = Counter()
    colours: Counter[tuple[str, str]] = Counter()
    for kind in KINDS:
        scores[kind], pairs = evaluate_kind(pipe, kind, count, steps, seed)
        for truth, verdict in pairs if kind in SINGLE else ():
            shape, colour = verdict.seen[0] if len(verdict.seen) == 1 else ("none", "none")
            shapes[truth.things[0].shape, shape] += 1
            colours[truth.things[0].colour, colour] += 1
    return Evaluation(steps, count, scores, shapes, colours, measure_spread(pipe, steps))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Measure tiny-klein on held-out prompts.")
    parser.add_argument("--model", type=Path, default=SHIPPED)
    parser.add_argument("--count", type=int, default=100, help="pictures a kind")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--report", type=Path, help="also write the tables here (Markdown)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    text = as_markdown(evaluate(load_pipeline(args.model), args.count, args.steps, args.seed))
    print(text)
    if args.report:
        args.report.write_text(text)


if __name__ == "__main__":
    main()
