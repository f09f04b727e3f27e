from __future__ import annotations

import tomllib
from typing import Any

import pytest
from pydantic import ValidationError

from tests.conftest import ROOT
from umrgen_core.errors import InvalidRequest
from umrgen_core.loras import LoraShelf
from umrgen_core.profiles import ModelProfile, ReferencesAs
from umrgen_core.requests import AcceptedRequest, accept_request

SHIPPED: dict[str, dict[str, Any]] = tomllib.loads((ROOT / "config.toml").read_text())["models"]


def make_profile(**changes: Any) -> ModelProfile:
    return ModelProfile(pipeline="X", path="x", **changes)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_profile_is_one_and_says_under_which_terms(name: str) -> None:
    profile = ModelProfile(**SHIPPED[name])
    assert profile.licence
    assert profile.revision
    assert profile.path.startswith(("hub:", "package:"))


def test_the_families_that_are_served_are_shipped() -> None:
    pipelines = {profile["pipeline"] for profile in SHIPPED.values()}
    assert pipelines == {
        "Flux2KleinPipeline",
        "Flux2KleinKVPipeline",
        "ZImagePipeline",
        "QwenImageEditPlusPipeline",
        "StableDiffusionXLPipeline",
        "FluxKontextPipeline",
    }


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": 9, "max_steps": 8}, "between min_steps and max_steps"),
        ({"steps": 1, "min_steps": 2}, "between min_steps and max_steps"),
        ({"references": 1}, "references_as"),
        ({"references_as": "list"}, "references_as"),
        ({"references_as": "single", "references": 2}, "takes 1 reference"),
        ({"references_as": "list", "references": 1, "min_references": 2}, "min_references"),
        ({"references_as": "ip_adapter", "references": 1}, "ip_adapter"),
        ({"references_as": "list", "references": 1, "ip_adapter": "x"}, "ip_adapter"),
        ({"references_as": "strength", "references": 1, "reference_strength": 0.8, "min_steps": 4}, "painted over"),
        ({"references_as": "strength", "references": 1}, "painted over"),
        ({"warm_up": ["big"]}, "warm_up"),
        ({"refrences": 1}, "refrences"),
    ],
)
def test_a_profile_that_contradicts_itself_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        make_profile(**changes)


def test_a_strength_that_leaves_something_of_the_reference_is_told_from_one_that_does_not() -> None:
    kept = {"references_as": "strength", "references": 1, "reference_strength": 0.6}
    profile = make_profile(**kept, steps=8, min_steps=4)
    assert profile.references_as is ReferencesAs.STRENGTH
    assert [profile.keeps_reference(steps) for steps in (1, 2, 3, 8)] == [False, False, True, True]


MODELS = {
    "plain": make_profile(),
    "editor": make_profile(references_as="list", references=3, min_references=1, min_steps=2, steps=8, max_steps=8),
    "small": make_profile(max_area_px=512 * 512, loras=2),
}


def accept(shelf: LoraShelf | None = None, **fields: Any) -> AcceptedRequest:
    return accept_request({"prompt": "a star", **fields}, MODELS, shelf or LoraShelf(""))


def problems_of(shelf: LoraShelf | None = None, **fields: Any) -> list[tuple[str, Any]]:
    with pytest.raises(InvalidRequest) as refused:
        accept(shelf, **fields)
    return [(problem["field"], problem.get("nearest")) for problem in refused.value.extra["errors"]]


def test_the_first_model_is_the_default_and_others_are_named() -> None:
    assert [accept().model, accept(model=None).model, accept(model="small", width=512, height=512).model] == [
        "plain",
        "plain",
        "small",
    ]
    assert accept(model="editor", reference_images=["a"]).steps == 8


@pytest.mark.parametrize("model", ["other", "Plain", "plain ", "../x", ""])
def test_a_model_that_is_not_served_is_refused_and_the_served_ones_are_named(model: str) -> None:
    with pytest.raises(InvalidRequest, match="plain, editor, small"):
        accept(model=model)
    assert problems_of(model=model) == [("model", "plain")]


@pytest.mark.parametrize("model", [5, True, ["plain"], {}])
def test_a_model_that_is_no_string_is_refused(model: Any) -> None:
    assert "model" in [field for field, _ in problems_of(model=model)]


def test_each_model_has_its_own_limits() -> None:
    assert problems_of(model="editor") == [("reference_images", None)]
    assert problems_of(model="editor", reference_images=["a"], steps=1) == [("steps", 2)]
    assert problems_of(model="editor", reference_images=["a"], steps=9) == [("steps", 8)]
    assert problems_of(model="small") == [("width", "512x512")]
    assert problems_of(model="small", width=1024, height=256 + 1) == [("width", "1022x256")]
    assert problems_of(model="plain", reference_images=["a"]) == [("reference_images", None)]
    assert accept(model="small", width=1024, height=256).width == 1024


@pytest.fixture
def shelf(tmp_path) -> LoraShelf:
    for name in ("ink", "clay", ".hidden", "a b"):
        file = tmp_path / "small" / f"{name}.safetensors"
        file.parent.mkdir(exist_ok=True)
        file.touch()
    (tmp_path / "small" / "notes.txt").touch()
    (tmp_path / "secret.safetensors").touch()
    return LoraShelf(str(tmp_path))


def test_the_loras_of_a_model_are_the_named_files_of_its_folder(shelf: LoraShelf) -> None:
    assert shelf.list_names("small") == ["clay", "ink"]
    assert shelf.list_names("plain") == []
    assert LoraShelf("").list_names("small") == []
    assert shelf.find_file("small", "ink").name == "ink.safetensors"
    for name in ("../secret", "/etc/passwd", "none", "", ".hidden", "ink/..", "ink\0"):
        assert shelf.find_file("small", name) is None


def test_loras_are_chosen_by_name_with_a_strength(shelf: LoraShelf) -> None:
    side = {"width": 512, "height": 512, "model": "small"}
    chosen = accept(shelf, **side, loras=[{"name": "ink"}, {"name": "clay", "strength": -0.5}]).loras
    assert [(choice.name, choice.strength) for choice in chosen] == [("ink", 1.0), ("clay", -0.5)]
    assert accept(shelf, **side, loras=[{"name": "ink", "strength": 1}]).loras[0].strength == 1.0
    assert problems_of(shelf, **side, loras=[{"name": "oil"}]) == [("loras[0].name", None)]
    assert problems_of(shelf, **side, loras=[{"name": "ink"}, {"name": "ink"}]) == [("loras[1].name", None)]
    assert problems_of(shelf, **side, loras=[{"name": "ink", "strength": 9}]) == [("loras[0].strength", 4.0)]
    assert ("loras", None) in problems_of(shelf, **side, loras=[{"name": "ink"}] * 3)
    assert problems_of(shelf, **side, loras="ink")
    assert problems_of(shelf, loras=[{"name": "ink"}]) == [("loras", None)]


def test_more_loras_than_the_model_takes_are_one_problem(shelf: LoraShelf) -> None:
    side = {"width": 512, "height": 512, "model": "small"}
    for count in (3, 8, 9, 4000):
        assert problems_of(shelf, **side, loras=[{"name": f"n{place}"} for place in range(count)]) == [("loras", None)]


def test_the_loras_to_choose_from_are_told_once_and_only_the_first_fifty(tmp_path) -> None:
    (tmp_path / "small").mkdir()
    for number in range(60):
        (tmp_path / "small" / f"n{number:02}.safetensors").touch()
    chosen = [{"name": "other"}, {"name": "another"}]
    with pytest.raises(InvalidRequest) as refused:
        accept(LoraShelf(str(tmp_path)), width=512, height=512, model="small", loras=chosen)
    first, second = refused.value.extra["errors"]
    assert (first["field"], second["field"]) == ("loras[0].name", "loras[1].name")
    assert first["limit"] == [f"n{number:02}" for number in range(50)]
    assert first["problem"].endswith("n49 and 10 more")
    assert "limit" not in second
