"""The checker passes right pictures and fails wrong ones: one that passes all is a defect."""

from dataclasses import replace

import numpy as np
import pytest

from training.checker import judge
from training.layout import lay_out
from training.palette import COLOURS
from training.render import render
from training.request import WHIMS, Request, Trait, Wanted, WantedBackdrop
from training.scene import SHAPES
from training.tasks import KINDS, Task, make_task

EVEN = dict.fromkeys(WHIMS, 0.5)
MIN_RIGHT = {"style": 0.85, "pattern": 0.93}  # everything else: 0.98


def _tasks(kind: str, count: int) -> list[Task]:
    rng = np.random.default_rng((11, KINDS.index(kind)))
    return [make_task(kind, rng) for _ in range(count)]


@pytest.mark.parametrize("kind", KINDS)
def test_right_pictures_pass(kind: str) -> None:
    tasks = _tasks(kind, 50)
    passed = [judge(render(t.scene), t.request, t.scene).right for t in tasks]
    assert np.mean(passed) >= MIN_RIGHT.get(kind, 0.98)


@pytest.mark.parametrize("kind", KINDS)
def test_right_pictures_fail_against_another_request(kind: str) -> None:
    tasks = _tasks(kind, 50)
    others = [*tasks[1:], tasks[0]]
    passed = [judge(render(o.scene), t.request, t.scene).right for t, o in zip(tasks, others, strict=True)]
    assert np.mean(passed) <= 0.04


def _one(shape: str, colour: str, ground: str, place: str | None = None) -> Request:
    backdrop = WantedBackdrop("plain", ground)
    return Request("one", (Wanted(Trait(shape), Trait(colour), place=place),), backdrop=backdrop)


@pytest.mark.parametrize("shape", SHAPES)
def test_each_shape_is_told_from_each_other_one(shape: str) -> None:
    picture = render(lay_out(_one(shape, "red", "white"), [], EVEN))
    for other in SHAPES:
        request = _one(other, "red", "white")
        verdict = judge(picture, request, lay_out(request, [], EVEN))
        assert verdict.shape is (other == shape), other
        assert verdict.colour and verdict.backdrop and verdict.count


@pytest.mark.parametrize("colour", COLOURS)
def test_each_colour_is_told_from_each_other_one(colour: str) -> None:
    ground = "white" if colour != "white" else "black"
    picture = render(lay_out(_one("circle", colour, ground), [], EVEN))
    for other in COLOURS:
        if other != ground:
            request = _one("circle", other, ground)
            verdict = judge(picture, request, lay_out(request, [], EVEN))
            assert verdict.colour is (other == colour), other


def test_a_wrong_backdrop_count_or_place_is_seen() -> None:
    asked = _one("circle", "red", "white", "left")
    truth = lay_out(asked, [], EVEN)
    on_green = lay_out(_one("circle", "red", "green", "left"), [], EVEN)
    assert not judge(render(on_green), asked, truth).backdrop
    on_the_right = lay_out(_one("circle", "red", "white", "right"), [], EVEN)
    assert not judge(render(on_the_right), asked, truth).position
    small = [replace(s.things[0], radius_px=11) for s in (truth, on_the_right)]
    both = replace(truth, things=tuple(small))
    assert not judge(render(both), asked, truth).count
    assert not judge(render(replace(truth, things=())), asked, truth).right


def test_a_swapped_relation_is_seen() -> None:
    things = (Wanted(Trait("circle"), Trait("red")), Wanted(Trait("square"), Trait("blue")))
    asked, swapped = (Request("two", things, side) for side in ("left", "right"))
    picture = render(lay_out(swapped, [], EVEN))
    verdict = judge(picture, asked, lay_out(asked, [], EVEN))
    assert verdict.shape and verdict.colour and not verdict.position


def test_noise_is_not_a_picture() -> None:
    rng = np.random.default_rng(0)
    for task in _tasks("one", 20):
        noise = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        assert not judge(noise, task.request, task.scene).right
