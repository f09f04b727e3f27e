"""A profile that does not fit its pipeline stops the start, with the name of what does not fit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.infer.shipped import SHIPPED, shipped_profiles, shrink
from umrgen_core.errors import ConfigError
from umrgen_core.profiles import ModelProfile, ReferencesAs
from umrgen_infer.painter import Commission
from umrgen_infer.pipelines.call import build_arguments
from umrgen_infer.pipelines.fit import list_arguments, require_fit
from umrgen_infer.pipelines.load import load_painter
from umrgen_infer.pipelines.pixels import OUTPUT_TYPE

RED, BLUE = (Image.new("RGB", (64, 64), colour) for colour in ("red", "blue"))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def commission(*references: Image.Image, **changes: Any) -> Commission:
    fields = {"prompt": "a cat", "negative": "", "width": 128, "height": 64, "steps": 4, "seed": 1}
    return Commission(**{**fields, "references": references, **changes})


@pytest.mark.parametrize("name", list(SHIPPED))
def test_every_shipped_profile_fits_the_signature_of_its_pipeline(name: str) -> None:
    profile = shipped_profiles()[name]
    plain, with_references = require_fit(name, profile)
    assert plain.__name__ == profile.pipeline
    assert (with_references.__name__ if with_references else "") == profile.reference_pipeline


@pytest.mark.parametrize(
    ("name", "changes", "named"),
    [
        ("flux2-klein-4b", {"pipeline": "NoSuchPipeline"}, "NoSuchPipeline"),
        ("flux2-klein-4b", {"pipeline": "AutoencoderKL"}, "AutoencoderKL"),
        ("flux2-klein-4b", {"arguments": {"strength": 0.5}}, "'strength'"),
        ("flux2-klein-4b", {"negative": True}, "'negative_prompt'"),
        ("flux2-klein-4b", {"guidance_argument": "true_cfg_scale"}, "'true_cfg_scale'"),
        ("flux2-klein-4b", {"area_argument": "max_area"}, "'max_area'"),
        ("flux2-klein-9b-kv", {"guidance_argument": "guidance_scale"}, "'guidance_scale'"),
        ("z-image-turbo", {"reference_pipeline": ""}, "'image'"),
        ("z-image-turbo", {"reference_pipeline": "NoSuchPipeline"}, "reference_pipeline"),
        ("z-image-turbo", {"reference_pipeline": "ZImagePipeline"}, "'image'"),
        # Its `**kwargs` would take any name and do nothing with it.
        ("sdxl-turbo", {"arguments": {"image": "x"}}, "'image'"),
        ("sdxl-turbo", {"references_as": ReferencesAs.LIST}, "'image'"),
        ("flux2-klein-4b", {"references_as": ReferencesAs.IP_ADAPTER}, "'ip_adapter_image'"),
    ],
)
def test_an_argument_that_the_pipeline_does_not_take_is_named(name: str, changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=rf"models\.{name}") as refused:
        require_fit(name, shipped_profiles()[name].model_copy(update=changes))
    assert named in refused.value.message


@pytest.mark.parametrize(
    ("name", "enough"),
    [
        ("z-image-turbo", {"guidance": 0.5}),
        ("sdxl-turbo", {"guidance": 2.0}),
        ("qwen-image-edit-2511", {"guidance": 4.0}),
        ("flux1-kontext-dev", {"arguments": {"true_cfg_scale": 2.0}}),
    ],
)
def test_a_negative_prompt_is_promised_only_with_the_guidance_that_makes_it_count(
    name: str, enough: dict[str, Any]
) -> None:
    distilled = shipped_profiles()[name].model_copy(update={"negative": True})
    with pytest.raises(ConfigError, match="negative = false"):
        require_fit(name, distilled)
    require_fit(name, distilled.model_copy(update=enough))


@pytest.mark.parametrize(
    ("name", "changes", "named"),
    [
        ("flux2-klein-4b", {"multiple_px": 8}, "multiple_px"),
        ("z-image-turbo", {"multiple_px": 8}, "64x72"),
        ("qwen-image-edit-2511", {"min_references": 0}, "0 references"),
        ("flux2-klein-4b", {"attention": "no-such-backend"}, "attention"),
        ("flux2-klein-4b", {"device": "cuda:99"}, "device"),
        ("flux2-klein-4b", {"device": "abacus"}, "device"),
        ("qwen-image-edit-2511", {"scheduler": {"no_such_setting": 1}}, "'no_such_setting'"),
        ("flux2-klein-4b", {"scheduler": {"shift_terminal": 0.02, "time_shift_type": "sideways"}}, "scheduler"),
    ],
)
def test_what_only_shows_when_it_is_tried_is_refused_at_start_as_well(
    tmp_path: Path, name: str, changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(ConfigError, match=rf"models\.{name}") as refused:
        load_painter(name, shrink(name, tmp_path, **changes))
    assert named in refused.value.message


def arguments(name: str, *references: Image.Image, **changes: Any) -> dict[str, Any]:
    profile: ModelProfile = shipped_profiles()[name].model_copy(update=changes)
    return build_arguments(profile, commission(*references))


def test_a_call_has_what_every_pipeline_takes_and_what_the_profile_adds() -> None:
    built = arguments("flux1-kontext-dev", arguments={"max_sequence_length": 256})
    assert built.pop("generator").initial_seed() == 1
    assert built == {
        "prompt": "a cat",
        "width": 128,
        "height": 64,
        "num_inference_steps": 4,
        "output_type": OUTPUT_TYPE,
        "guidance_scale": 2.5,
        "max_area": 128 * 64,
        "max_sequence_length": 256,
    }


def test_references_go_in_as_the_profile_says() -> None:
    assert arguments("flux2-klein-4b", RED, BLUE)["image"] == [RED, BLUE]
    assert arguments("flux1-kontext-dev", RED)["image"] is RED
    strength = arguments("z-image-turbo", RED)
    assert (strength["image"], strength["strength"]) == (RED, 0.6)
    assert arguments("sdxl-turbo", RED, BLUE)["ip_adapter_image"] == [[RED, BLUE]]
    assert "image" not in arguments("flux2-klein-4b")
    (blanks,) = arguments("sdxl-turbo")["ip_adapter_image"]
    assert len(blanks) == 1


def test_a_negative_prompt_goes_in_only_where_it_is_read() -> None:
    profile = shipped_profiles()["z-image-turbo"]
    asked = commission(negative="ugly")
    assert "negative_prompt" not in build_arguments(profile, asked)
    reads = profile.model_copy(update={"negative": True, "guidance": 4.0})
    assert build_arguments(reads, asked)["negative_prompt"] == "ugly"


def test_what_a_pipeline_swallows_without_a_name_counts_as_unknown() -> None:
    plain, _ = require_fit("sdxl-turbo", shipped_profiles()["sdxl-turbo"])
    assert "guidance_scale" in list_arguments(plain)
    assert not {"self", "kwargs"} & set(list_arguments(plain))
