"""Each family of production models, tiny and with random weights, through diffusers' own loading and calling."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.infer.families.family import Family, plain_pictures
from tests.infer.families.flux2_klein import KLEIN, KLEIN_KV
from tests.infer.families.lora import ADAPTED, WEIGHTS, build_lightning_lora
from tests.infer.families.qwen_edit import QWEN_EDIT
from tests.infer.families.sdxl import ADAPTER_WEIGHTS, SDXL, build_ip_adapter
from tests.infer.families.shelf import FAMILIES, Shelf, differ, least_references, open_shelf, paint, shrink_references
from tests.infer.families.z_image import Z_IMAGE_IMG2IMG

MAX_BYTES = 2_000_000
MAX_BUILD_S = 2.0

every_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    with open_shelf(tmp_path_factory.mktemp("families")) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _small_references(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink_references(monkeypatch)


@every_family
def test_a_family_is_built_small_and_soon_from_nothing_but_a_seed(family: Family, tmp_path: Path) -> None:
    begin = time.perf_counter()
    family.build(tmp_path / "one", 7)
    assert time.perf_counter() - begin < MAX_BUILD_S
    family.build(tmp_path / "same", 7)
    family.build(tmp_path / "other", 8)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert sum((tmp_path / "one" / path).stat().st_size for path in files) < MAX_BYTES
    weights = [path for path in files if path.suffix == ".safetensors"]
    assert weights
    for path in weights:
        one, same, other = ((tmp_path / copy / path).read_bytes() for copy in ("one", "same", "other"))
        assert one == same
        assert one != other


@every_family
def test_a_familys_index_names_its_class_and_nothing_of_ours(family: Family, shelf: Shelf) -> None:
    index = json.loads((shelf.folder(family) / "model_index.json").read_text())
    assert index["_class_name"] == family.pipeline
    libraries = {part[0] for part in index.values() if isinstance(part, list)}
    assert libraries - {None} == {"diffusers", "transformers"}


@every_family
def test_two_steps_paint_a_finite_picture_that_the_seed_and_the_prompt_decide(family: Family, shelf: Shelf) -> None:
    pipeline, references = shelf.pipeline(family), least_references(family)
    picture = paint(pipeline, family, *references)
    assert picture.shape == (family.side_px, family.side_px, 3)
    assert np.isfinite(picture).all()
    assert picture.std() > 0.01
    assert not differ(picture, paint(pipeline, family, *references))
    assert differ(picture, paint(pipeline, family, *references, seed=2))
    assert differ(picture, paint(pipeline, family, *references, prompt="three dogs in the rain"))


@pytest.mark.parametrize("family", [one for one in FAMILIES if one.max_references], ids=lambda family: family.name)
def test_another_reference_paints_another_picture(family: Family, shelf: Shelf) -> None:
    pipeline = shelf.pipeline(family)
    red, blue = (paint(pipeline, family, reference) for reference in plain_pictures("red", "blue"))
    assert differ(red, blue)
    if not family.needs_reference:
        assert differ(red, paint(pipeline, family))


@pytest.mark.parametrize("family", [KLEIN, KLEIN_KV, QWEN_EDIT], ids=lambda family: family.name)
def test_the_order_of_two_references_counts(family: Family, shelf: Shelf) -> None:
    red, blue = plain_pictures("red", "blue")
    pipeline = shelf.pipeline(family)
    assert differ(paint(pipeline, family, red, blue), paint(pipeline, family, blue, red))


@every_family
def test_the_scheduler_steps_once_for_each_step_that_was_asked_for(family: Family, shelf: Shelf) -> None:
    pipeline, calls = shelf.pipeline(family), []
    step = pipeline.scheduler.step
    pipeline.scheduler.step = functools.wraps(step)(lambda *given, **named: (calls.append(1), step(*given, **named))[1])
    try:
        paint(pipeline, family, *least_references(family), num_inference_steps=4)
    finally:
        del pipeline.scheduler.step
    # Image to image at half strength leaves out the first half.
    assert len(calls) == (2 if family is Z_IMAGE_IMG2IMG else 4)


def test_a_reference_reaches_sdxl_through_an_adapter_from_a_local_folder(shelf: Shelf, tmp_path: Path) -> None:
    pipeline = shelf.load(SDXL)
    plain = paint(pipeline, SDXL)
    build_ip_adapter(tmp_path, pipeline.unet)
    pipeline.load_ip_adapter(tmp_path, subfolder="", weight_name=ADAPTER_WEIGHTS, local_files_only=True)
    red, blue = plain_pictures("red", "blue")
    one, other = (paint(pipeline, SDXL, ip_adapter_image=reference) for reference in (red, blue))
    assert differ(one, other)
    assert differ(one, plain)
    # One adapter takes several references as a list within the list.
    assert differ(one, paint(pipeline, SDXL, ip_adapter_image=[[red, blue]]))
    pipeline.set_ip_adapter_scale(0.0)
    assert not differ(paint(pipeline, SDXL, ip_adapter_image=red), paint(pipeline, SDXL, ip_adapter_image=blue))
    pipeline.unload_ip_adapter()
    assert not differ(paint(pipeline, SDXL), plain)


def test_a_lightning_file_names_the_matrices_of_qwens_transformer(shelf: Shelf, tmp_path: Path) -> None:
    pipeline = shelf.pipeline(QWEN_EDIT)
    build_lightning_lora(tmp_path, pipeline.transformer)
    read = pipeline.lora_state_dict(tmp_path, weight_name=WEIGHTS, local_files_only=True)
    assert len(read) == 2 * len(ADAPTED)
    for key, weight in read.items():
        matrix, _, side = key.removeprefix("transformer.").removesuffix(".weight").rpartition(".")
        module = pipeline.transformer.get_submodule(matrix)
        width = {"lora_A": weight.shape[1] == module.in_features, "lora_B": weight.shape[0] == module.out_features}
        assert width[side]


def test_a_strength_that_leaves_out_less_than_a_step_forgets_the_reference(shelf: Shelf) -> None:
    red, blue = plain_pictures("red", "blue")

    def tell_apart(strength: float) -> bool:
        pipeline = shelf.pipeline(Z_IMAGE_IMG2IMG)
        return differ(*(paint(pipeline, Z_IMAGE_IMG2IMG, image, strength=strength) for image in (red, blue)))

    assert tell_apart(0.5)
    assert not tell_apart(0.6)  # 0.8 of a step to leave out is rounded down to none
