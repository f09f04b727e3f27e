from __future__ import annotations

import json

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


def refuse(settings: Settings, **fields: object) -> list[dict[str, object]]:
    with pytest.raises(InvalidRequest) as refused:
        accept(settings, **fields)
    problems: list[dict[str, object]] = refused.value.extra["errors"]
    assert len(refused.value.message) + len(json.dumps(problems)) < 8192
    return problems


ENDLESS = {
    "numbers for references": {"reference_images": [1] * 32_000},
    "numbers for LoRAs": {"loras": [1] * 32_000},
    "LoRAs of other models": {"loras": [{"name": str(number)} for number in range(4000)]},
    "LoRAs without a name": {"loras": [{"name": [number]} for number in range(4000)]},
    "a LoRA of many fields": {"loras": [{"name": "q", **{str(number): 1 for number in range(6500)}}]},
    "a LoRA with a long field": {"loras": [{"name": "q", "x" * 60_000: 1}]},
}


@pytest.mark.parametrize("name", ENDLESS)
def test_however_many_items_are_wrong_the_answer_is_short(settings: Settings, name: str) -> None:
    (field,) = ENDLESS[name]
    problems = refuse(settings, **ENDLESS[name])
    assert len(problems) <= 2
    assert all(str(problem["field"]).startswith(field) for problem in problems)


@pytest.mark.parametrize("count", [3, 16, 17, 20_000])
def test_too_many_references_are_one_problem_with_the_models_own_limit(settings: Settings, count: int) -> None:
    (problem,) = refuse(settings, reference_images=["a"] * count)
    assert (problem["field"], problem["limit"]) == ("reference_images", 2)


def test_a_list_too_long_for_any_model_is_told_beside_an_unknown_model(settings: Settings) -> None:
    problems = refuse(settings, model="other", reference_images=["a"] * 17)
    assert [(problem["field"], problem.get("limit")) for problem in problems][:1] == [("reference_images", 16)]
    assert problems[-1]["field"] == "model"


def test_no_answer_names_more_than_twenty_problems(settings: Settings) -> None:
    wrong = dict.fromkeys(("negative", "width", "height", "steps", "seed", "reference_images", "callback_url"), True)
    lora = {"name": "q", **{str(number): 1 for number in range(15)}}
    assert len(refuse(settings, prompt=5, loras=[lora], **wrong)) == 20
    assert len(refuse(settings, prompt=5, loras=[lora], model=5, **wrong)) == 20
    problems = refuse(settings, prompt=5, loras=[lora], model="other", **wrong)
    assert (len(problems), problems[-1]["field"]) == (20, "model")


def test_of_many_unknown_fields_the_first_are_named_cut_short_and_the_rest_counted(settings: Settings) -> None:
    assert accept(settings, **{"x" * 65: 1}).ignored == ("x" * 64,)
    names = [f"field {number}" for number in range(40)]
    assert accept(settings, **dict.fromkeys(names[:32])).ignored == tuple(names[:32])
    ignored = accept(settings, negative="blurry", **dict.fromkeys(names)).ignored
    assert ignored == ("negative", *names[:32], "and 8 more")
