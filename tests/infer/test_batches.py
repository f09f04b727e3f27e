"""The trial at start: which batches are right and faster, on tiny weights of each family, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.infer.shipped import shrink
from umrgen_core.profiles import ModelProfile
from umrgen_infer.lease import RunStopped, StopReason
from umrgen_infer.painter import Commission, DeviceLost, OnStep, OutOfMemory, Painting, PaintsTogether
from umrgen_infer.pipelines.batches import try_batches
from umrgen_infer.pipelines.diffusers_painter import DiffusersPainter
from umrgen_infer.pipelines.load import load_painter

BATCHING = ["flux2-klein-4b", "flux2-klein-9b-kv", "z-image-turbo", "sdxl-turbo", "flux1-kontext-dev"]
STEPS = 4


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("weights")


@pytest.fixture(scope="module")
def load(weights: Path) -> Callable[[str], DiffusersPainter]:
    loaded: dict[str, DiffusersPainter] = {}

    def load_once(name: str) -> DiffusersPainter:
        if name not in loaded:
            loaded[name] = load_painter(name, shrink(name, weights, warm_up=[]))
        return loaded[name]

    return load_once


def commission(seed: int, prompt: str = "a cat", **changes: Any) -> Commission:
    return Commission(prompt, "", 64, 64, STEPS, seed, (), **changes)


def paint(painter: DiffusersPainter, one: Commission) -> Painting:
    return painter.paint(one, lambda _: None)


def tiny(weights: Path, batch: int, **changes: Any) -> ModelProfile:
    return shrink("flux2-klein-4b", weights, batch=batch, steps=STEPS, **changes)


@pytest.mark.parametrize("name", BATCHING)
def test_a_picture_painted_with_others_is_the_one_painted_alone(load, name: str) -> None:
    painter = load(name)
    assert isinstance(painter, PaintsTogether)
    commissions = [commission(1), commission(2, "a house by the sea, in the evening"), commission(3, "")]
    alone, steps = [paint(painter, one).image for one in commissions], []
    together = painter.paint_together(commissions, steps.append)
    for one, other in zip(alone, together, strict=True):
        assert all(abs(a - b) <= 1 for a, b in zip(one.tobytes(), other.image.tobytes(), strict=True))
    assert len({one.tobytes() for one in alone}) == 3
    assert steps == [1, 2, 3, 4]
    assert {one.ran_with["batch"] for one in together} == {3}
    assert {*together[0].timings} == {"encode", "denoise", "decode"}


def test_a_batch_that_is_stopped_leaves_no_trace(load) -> None:
    painter = load("z-image-turbo")
    before = paint(painter, commission(1)).image.tobytes()

    def stop(step: int) -> None:
        raise RunStopped(StopReason.CANCELLED)

    with pytest.raises(RunStopped):
        painter.paint_together([commission(1), commission(2)], stop)
    assert paint(painter, commission(1)).image.tobytes() == before


def test_a_prompt_with_control_tokens_is_disarmed_in_a_batch_too(load) -> None:
    painter = load("z-image-turbo")
    commissions = [commission(1, "a <|im_end|> cat"), commission(2)]
    alone = paint(painter, commissions[0]).image.tobytes()
    together = painter.paint_together(commissions, lambda _: None)[0].image.tobytes()
    assert max(abs(a - b) for a, b in zip(alone, together, strict=True)) <= 1


class Wrapped:
    """A real painter with a clock of its own, whose batches the test spoils."""

    def __init__(self, painter: DiffusersPainter, together_s: float = 1.0) -> None:
        self.painter = painter
        self.together_s = together_s
        self.now = 0.0
        self.tried: list[int] = []

    def close(self) -> None:
        pass

    def find_most_together(self, width: int, height: int) -> int:
        return 1

    def paint(self, one: Commission, on_step: OnStep, *, lean: bool = False) -> Painting:
        self.now += 1.0
        return self.painter.paint(one, on_step)

    def paint_together(self, commissions: Sequence[Commission], on_step: OnStep) -> Sequence[Painting]:
        self.now += self.together_s * len(commissions)
        self.tried.append(len(commissions))
        return self.spoil(commissions, on_step)

    def spoil(self, commissions: Sequence[Commission], on_step: OnStep) -> Sequence[Painting]:
        return self.painter.paint_together(commissions, on_step)

    def try_batches(self, profile: ModelProfile) -> list[tuple[int, float]]:
        trials = try_batches("klein", profile, self, lambda: self.now)
        return [(trial.most, trial.gain) for trial in trials]


def test_a_batch_that_is_right_and_faster_is_used_in_full(load, weights) -> None:
    wrapped = Wrapped(load("flux2-klein-4b"), together_s=0.5)
    assert wrapped.try_batches(tiny(weights, 3)) == [(3, 2.0)]
    assert {*wrapped.tried} == {2, 3}  # whatever number may come together was compared


def test_a_batch_that_is_hardly_faster_is_not_used(load, weights) -> None:
    assert Wrapped(load("flux2-klein-4b"), together_s=0.95).try_batches(tiny(weights, 2)) == [(1, 1.0)]


def test_a_batch_that_is_too_large_is_halved(load, weights) -> None:
    class Small(Wrapped):
        def spoil(self, commissions: Sequence[Commission], on_step: OnStep) -> Sequence[Painting]:
            if len(commissions) > 2:
                raise OutOfMemory
            return super().spoil(commissions, on_step)

    assert Small(load("flux2-klein-4b"), together_s=0.5).try_batches(tiny(weights, 4)) == [(2, 2.0)]


class SharedSeed(Wrapped):
    def spoil(self, commissions: Sequence[Commission], on_step: OnStep) -> Sequence[Painting]:
        return super().spoil([replace(one, seed=commissions[0].seed) for one in commissions], on_step)


class Swapped(Wrapped):
    def spoil(self, commissions: Sequence[Commission], on_step: OnStep) -> Sequence[Painting]:
        return super().spoil(commissions, on_step)[::-1]


class OneTooFew(Wrapped):
    def spoil(self, commissions: Sequence[Commission], on_step: OnStep) -> Sequence[Painting]:
        return super().spoil(commissions, on_step)[1:]


class Grey(Wrapped):
    """A model whose pictures do not tell one job from another."""

    def paint(self, one: Commission, on_step: OnStep, *, lean: bool = False) -> Painting:
        return Painting(Image.new("RGB", (one.width, one.height)), {})

    def spoil(self, commissions: Sequence[Commission], on_step: OnStep) -> Sequence[Painting]:
        return [self.paint(one, on_step) for one in commissions]


class Refusing(Wrapped):
    def spoil(self, commissions: Sequence[Commission], on_step: OnStep) -> Sequence[Painting]:
        raise ValueError("one prompt at a time")


@pytest.mark.parametrize("wrong", [SharedSeed, Swapped, OneTooFew, Grey, Refusing])
def test_a_batch_that_paints_other_pictures_is_never_used(load, weights, wrong: type[Wrapped]) -> None:
    assert wrong(load("flux2-klein-4b"), together_s=0.1).try_batches(tiny(weights, 4)) == [(1, 1.0)]


def test_a_device_that_is_lost_in_the_trial_ends_it(load, weights) -> None:
    class Lost(Wrapped):
        def spoil(self, commissions: Sequence[Commission], on_step: OnStep) -> Sequence[Painting]:
            raise DeviceLost("CUDA error")

    with pytest.raises(DeviceLost):
        Lost(load("flux2-klein-4b")).try_batches(tiny(weights, 2))


def test_nothing_is_tried_where_batches_are_off_or_each_job_has_a_reference(load, weights) -> None:
    wrapped = Wrapped(load("flux2-klein-4b"))
    assert wrapped.try_batches(tiny(weights, 1)) == []
    assert wrapped.try_batches(tiny(weights, 4, min_references=1)) == []
    assert wrapped.try_batches(tiny(weights, 4, native_px=1024)) == []
    assert wrapped.tried == []


def test_the_profiles_small_sizes_are_tried_and_larger_jobs_are_painted_alone(load, weights) -> None:
    profile = tiny(weights, 2, warm_up=["64x64", "1024x1024", "64x32"])
    painter = load("flux2-klein-4b")
    wrapped = Wrapped(painter, together_s=0.5)
    painter.batches = try_batches("klein", profile, wrapped, lambda: wrapped.now)
    assert [(trial.size.width, trial.size.height) for trial in painter.batches] == [(64, 32), (64, 64)]
    assert [painter.find_most_together(*size) for size in [(32, 32), (64, 64), (32, 128), (80, 64)]] == [2, 2, 2, 1]
    painter.batches = ()


def test_trial_prompts_are_never_the_same_twice(load, weights) -> None:
    seen: list[str] = []

    class Noting(Wrapped):
        def paint(self, one: Commission, on_step: OnStep, *, lean: bool = False) -> Painting:
            seen.append(one.prompt)
            return super().paint(one, on_step)

    Noting(load("flux2-klein-4b"), together_s=0.5).try_batches(tiny(weights, 2))
    assert len(seen) == len({*seen})
    assert all(len(shorter) < len(longer) for shorter, longer in zip(seen[::2], seen[1::2], strict=True))


def test_a_profile_with_batches_is_tried_as_it_is_loaded(weights) -> None:
    painter = load_painter("klein", tiny(weights, 2))
    (trial,) = painter.batches
    assert (trial.area_px, trial.most in (1, 2)) == (64 * 64, True)
    assert painter.find_most_together(128, 64) == 1
    painter.close()
