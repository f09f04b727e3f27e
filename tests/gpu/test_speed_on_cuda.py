"""What only a GPU can show, on tiny models of every family: options change bits at most, and memory is really freed."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from tests.infer.families.family import Family, plain_pictures
from tests.infer.families.flux2_klein import KLEIN, KLEIN_KV
from tests.infer.families.sdxl import SDXL
from tests.infer.families.shelf import FAMILIES, Shelf, least_references, open_shelf, paint, shrink_references
from umrgen_core.profiles import ModelProfile
from umrgen_infer.pipelines.caches import find_caches
from umrgen_infer.pipelines.pixels import OUTPUT_TYPE, to_picture
from umrgen_infer.pipelines.speed import find_denoiser, speed_up

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
ROUNDING = 0.05
"""Mean distance of two pictures in bfloat16 whose sums were taken in another order; from 0 to 1."""


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    with open_shelf(tmp_path_factory.mktemp("families")) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _small_references(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink_references(monkeypatch)


def profile_of(family: Family, **options: Any) -> ModelProfile:
    return ModelProfile(pipeline=family.pipeline, path="unread", dtype="bfloat16", device="cuda", **options)


def load_bare(shelf: Shelf, family: Family) -> Any:
    return shelf.load(family).to("cuda", torch.bfloat16)


def load_fast(shelf: Shelf, family: Family, **options: Any) -> tuple[Any, dict[str, object]]:
    pipeline = shelf.load(family).to(torch.bfloat16)
    if "offload" not in options:
        pipeline.to("cuda")
    return pipeline, speed_up(pipeline, profile_of(family, **options), "cuda")


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_pictures_are_the_bare_pipelines_up_to_the_order_of_the_vaes_sums(family: Family, shelf: Shelf) -> None:
    references = least_references(family)
    bare = paint(load_bare(shelf, family), family, *references)
    pipeline, _ = load_fast(shelf, family, cache_bytes=1 << 26)
    first, second = (paint(pipeline, family, *references) for _ in range(2))
    assert (first == second).all()
    assert np.abs(first - bare).mean() < ROUNDING
    caches = find_caches(pipeline)
    assert caches is not None
    assert caches.counts["prompt_hits"] == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_eight_bits_are_rounded_on_the_device_as_on_the_processor(dtype: torch.dtype) -> None:
    images = torch.rand(1, 3, 256, 255, generator=torch.Generator().manual_seed(1)).to(dtype)
    assert to_picture(images.cuda()).tobytes() == to_picture(images).tobytes()
    assert OUTPUT_TYPE == "pt"


@pytest.mark.parametrize("offload", ["model", "sequential"])
@pytest.mark.parametrize("family", [KLEIN, SDXL], ids=lambda family: family.name)
def test_offloaded_models_paint_the_same_and_leave_the_device(family: Family, offload: str, shelf: Shelf) -> None:
    kept, _ = load_fast(shelf, family)
    expected = paint(kept, family)
    pipeline, ran_with = load_fast(shelf, family, offload=offload)
    assert ran_with["offload"] == offload
    for _ in range(2):
        assert (paint(pipeline, family) == expected).all()
    assert {weight.device.type for weight in find_denoiser(pipeline).parameters()} <= {"cpu", "meta"}


@pytest.mark.parametrize("backend", ["_native_cudnn", "_native_flash", "_native_math"])
def test_attention_backends_differ_by_rounding(backend: str, shelf: Shelf) -> None:
    pipeline, _ = load_fast(shelf, KLEIN, attention=backend)
    difference = np.abs(paint(pipeline, KLEIN) - paint(load_bare(shelf, KLEIN), KLEIN)).mean()
    assert difference < ROUNDING


def test_compiled_blocks_differ_by_rounding_with_and_without_references(shelf: Shelf) -> None:
    torch.compiler.reset()
    for family in (KLEIN, KLEIN_KV):
        pipeline, _ = load_fast(shelf, family, compile="inductor")
        bare = load_bare(shelf, family)
        for references in ([], plain_pictures("red"), plain_pictures("red", "blue")):
            difference = np.abs(paint(pipeline, family, *references) - paint(bare, family, *references)).mean()
            assert difference < ROUNDING
    torch.compiler.reset()


def allocated_bytes() -> int:
    gc.collect()
    torch.cuda.empty_cache()
    return torch.cuda.memory_allocated()


def test_skipped_layers_and_narrow_weights_leave_the_devices_memory(shelf: Shelf) -> None:
    before = allocated_bytes()
    bare = load_bare(shelf, KLEIN)
    bare_bytes = allocated_bytes() - before
    del bare
    pipeline, _ = load_fast(shelf, KLEIN)
    skipped_bytes = allocated_bytes() - before
    del pipeline
    pipeline, _ = load_fast(shelf, KLEIN, storage_dtype="float8_e4m3fn")
    narrow_bytes = allocated_bytes() - before
    assert narrow_bytes < skipped_bytes < bare_bytes
    del pipeline
    assert allocated_bytes() <= before + 1024


def test_cleared_caches_leave_the_devices_memory(shelf: Shelf) -> None:
    pipeline, _ = load_fast(shelf, KLEIN, cache_bytes=1 << 26)
    paint(pipeline, KLEIN, *plain_pictures("red"))
    caches = find_caches(pipeline)
    assert caches is not None
    kept, before = caches.kept_bytes, allocated_bytes()
    caches.clear()
    assert 0 < kept <= before - allocated_bytes() + 4096
