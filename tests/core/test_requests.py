from __future__ import annotations

import pytest

from umrgen_core.config import Settings
from umrgen_core.errors import InvalidRequest
from umrgen_core.loras import LoraShelf
from umrgen_core.requests import MAX_SEED, AcceptedRequest, accept_request


def accept(settings: Settings, **fields: object) -> AcceptedRequest:
    return accept_request({"prompt": "a star", **fields}, settings.served_models, LoraShelf(settings.infer.loras))


def test_defaults_are_filled_in(settings: Settings) -> None:
    accepted = accept(settings)
    assert (accepted.width, accepted.height, accepted.steps) == (1024, 1024, 4)
    assert 0 <= accepted.seed <= MAX_SEED
    assert accepted.ignored == ()


@pytest.mark.parametrize("seed", [None, -1])
def test_a_random_seed_is_drawn_anew_each_time(settings: Settings, seed: int | None) -> None:
    assert len({accept(settings, seed=seed).seed for _ in range(20)}) == 20


@pytest.mark.parametrize("seed", [0, 1, MAX_SEED, 7.0])
def test_a_given_seed_is_kept(settings: Settings, seed: int) -> None:
    assert accept(settings, seed=seed).seed == seed


@pytest.mark.parametrize("value", [True, "1024", 1024.5, None, [], 63, 2049, 1e300])
def test_a_width_that_is_no_integer_in_range_is_refused_by_name(settings: Settings, value: object) -> None:
    with pytest.raises(InvalidRequest) as refused:
        accept(settings, width=value)
    assert [problem["field"] for problem in refused.value.extra["errors"]] == ["width"]


def test_a_number_out_of_range_comes_with_its_limit_and_the_nearest_value(settings: Settings) -> None:
    with pytest.raises(InvalidRequest) as refused:
        accept(settings, width=10, height=99999, steps=51)
    problems = {problem["field"]: problem for problem in refused.value.extra["errors"]}
    assert (problems["width"]["limit"], problems["width"]["nearest"]) == (64, 64)
    assert (problems["height"]["limit"], problems["height"]["nearest"]) == (2048, 2048)
    assert (problems["steps"]["limit"], problems["steps"]["nearest"]) == (50, 50)


@pytest.mark.parametrize("prompt", ["", "   \n ", "x" * 2001, 5, None])
def test_a_prompt_must_have_characters_but_not_too_many(settings: Settings, prompt: object) -> None:
    with pytest.raises(InvalidRequest):
        accept(settings, prompt=prompt)


def test_a_prompt_is_counted_after_trimming(settings: Settings) -> None:
    assert accept(settings, prompt="  " + "x" * 2000 + "  ").prompt == "x" * 2000


def test_what_the_model_cannot_honour_is_named(settings: Settings) -> None:
    accepted = accept(settings, negative="blurry", cfg_scale=7)
    assert accepted.ignored == ("negative", "cfg_scale")
    assert accepted.negative == "blurry"


def test_an_empty_negative_asks_for_nothing(settings: Settings) -> None:
    assert accept(settings, negative="").ignored == ()


def test_more_references_than_the_model_takes_are_refused(settings: Settings) -> None:
    with pytest.raises(InvalidRequest) as refused:
        accept(settings, reference_images=["a", "b", "c"])
    assert refused.value.extra["errors"][0]["limit"] == 2


@pytest.mark.parametrize("value", ["image.png", [1], [None], {}, [["a"]]])
def test_references_must_be_an_array_of_strings(settings: Settings, value: object) -> None:
    with pytest.raises(InvalidRequest):
        accept(settings, reference_images=value)
