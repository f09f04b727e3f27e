"""The grammar: requests, wordings and the scenes that they mean."""

import numpy as np
import pytest

from training.captions import caption, is_held_out
from training.layout import lay_out
from training.palette import COLOURS, PALETTE, nearest_colour, shade, vary
from training.render import render
from training.request import OPEN, WHIMS, Request, Trait, Wanted
from training.scene import SHAPES
from training.tasks import KINDS, REFERENCES_OF, SHARES, make_task

EVEN = dict.fromkeys(WHIMS, 0.5)


def test_every_shade_and_variation_keeps_its_colours_name() -> None:
    rng = np.random.default_rng(0)
    for name in COLOURS:
        assert nearest_colour(PALETTE[name]) == name
        assert {nearest_colour(shade(name, amount)) for amount in (-1, 1)} == {name}
        assert {nearest_colour(vary(name, rng)) for _ in range(20)} == {name}


def test_shares_of_the_kinds_add_up_to_one() -> None:
    assert sum(SHARES.values()) == pytest.approx(1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_is_the_same_for_the_same_seed_and_another_for_another(kind: str) -> None:
    first, again, other = (make_task(kind, np.random.default_rng(seed)) for seed in (4, 4, 5))
    assert first.request == again.request and first.whims == again.whims
    assert (render(first.scene) == render(again.scene)).all()
    assert len(first.references) == REFERENCES_OF.get(kind, 0)
    assert (render(first.scene) != render(other.scene)).any()


def test_held_out_wordings_and_training_wordings_never_meet() -> None:
    rng = np.random.default_rng(0)
    for kind in KINDS:
        request = make_task(kind, rng).request
        assert is_held_out(caption(request, rng, held_out=True))
        assert not is_held_out(caption(request, rng, held_out=False))


def test_one_request_has_many_wordings() -> None:
    request = Request("one", (Wanted(Trait("circle"), Trait("red")),))
    rng = np.random.default_rng(0)
    assert len({caption(request, rng, held_out=False) for _ in range(100)}) > 50


def test_what_the_prompt_leaves_open_is_decided_by_the_whims_alone() -> None:
    request = Request("one", (Wanted(OPEN, OPEN),))
    one, same = lay_out(request, [], EVEN), lay_out(request, [], dict(EVEN))
    other = lay_out(request, [], {**EVEN, "shape": 0.01, "colour": 0.01, "x": 0.9})
    assert (one.things[0].shape, one.things[0].colour) == (
        same.things[0].shape,
        same.things[0].colour,
    )
    assert one.things[0].shape != other.things[0].shape
    assert one.things[0].colour != other.things[0].colour
    assert one.things[0].x_px < other.things[0].x_px


def test_what_the_prompt_says_does_not_depend_on_the_whims() -> None:
    rng = np.random.default_rng(0)
    request = Request("one", (Wanted(Trait("star"), Trait("blue"), place="left"),))
    for _ in range(50):
        whims = dict(zip(WHIMS, rng.uniform(0, 1, len(WHIMS)), strict=True))
        (thing,) = lay_out(request, [], whims).things
        assert (thing.shape, thing.colour) == ("star", "blue")
        assert thing.x_px < 27


def test_all_shapes_can_be_drawn_inside_the_picture() -> None:
    rng = np.random.default_rng(1)
    seen = set()
    for _ in range(200):
        task = make_task("one", rng)
        for thing in task.scene.things:
            seen.add(thing.shape)
            assert thing.radius_px <= thing.x_px <= 64 - thing.radius_px
            assert thing.radius_px <= thing.y_px <= 64 - thing.radius_px
    assert seen == set(SHAPES)
