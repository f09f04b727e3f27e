"""The short way from tensor to picture gives what diffusers' own way gives, in every bit, and no black for NaN."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from diffusers.image_processor import VaeImageProcessor

from tests.infer.families.family import Family
from tests.infer.families.shelf import FAMILIES, Shelf, least_references, open_shelf, paint, shrink_references
from umrgen_core.errors import RunError
from umrgen_core.jobs import ErrorCode
from umrgen_infer.pipelines.pixels import OUTPUT_TYPE, to_picture

POISON = [float("nan"), float("inf"), -0.5, 1.5]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    with open_shelf(tmp_path_factory.mktemp("families")) as opened:
        yield opened


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_family_gives_the_picture_of_its_own_way_to_pil(
    family: Family, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink_references(monkeypatch)
    pipeline, decoded = shelf.pipeline(family), []
    postprocess = pipeline.image_processor.postprocess

    def keep(image: torch.Tensor, **options: Any) -> Any:
        decoded.append(image.detach())
        return postprocess(image, **options)

    monkeypatch.setattr(pipeline.image_processor, "postprocess", keep)
    paint(pipeline, family, *least_references(family))
    (own,) = postprocess(decoded[0], output_type="pil")
    short = to_picture(postprocess(decoded[0], output_type=OUTPUT_TYPE))
    assert (short.mode, short.size, short.tobytes()) == (own.mode, own.size, own.tobytes())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_every_value_is_rounded_as_diffusers_rounds_it(dtype: torch.dtype) -> None:
    halves = (torch.arange(3 * 255) % 255 + 0.5) / 255
    noise = torch.rand(3 * 255 * 63, generator=torch.Generator().manual_seed(1))
    decoded = torch.cat([halves, noise]).view(1, 3, 64, 255).mul(2).sub(1).to(dtype)
    processor = VaeImageProcessor()
    (own,) = processor.postprocess(decoded, output_type="pil")
    assert to_picture(processor.postprocess(decoded, output_type=OUTPUT_TYPE)).tobytes() == own.tobytes()


@pytest.mark.parametrize("value", POISON)
def test_a_picture_with_one_impossible_value_is_a_model_error(value: float) -> None:
    images = torch.full((1, 3, 8, 8), 0.5)
    images[0, 1, 7, 3] = value
    with pytest.raises(RunError) as refused:
        to_picture(images)
    assert refused.value.error_code == ErrorCode.MODEL_ERROR


@pytest.mark.parametrize("images", [None, [], torch.zeros(3, 8, 8), torch.zeros(1, 4, 8, 8), torch.zeros(2, 3, 8, 8)])
def test_what_is_not_one_picture_is_a_model_error(images: Any) -> None:
    with pytest.raises(RunError) as refused:
        to_picture(images)
    assert refused.value.error_code == ErrorCode.MODEL_ERROR
