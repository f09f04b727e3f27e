"""A profile's options for speed and memory do what they say, or are refused by the key's name."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from tests.infer.families.family import Family, plain_pictures
from tests.infer.families.flux2_klein import KLEIN, KLEIN_KV
from tests.infer.families.qwen_edit import QWEN_EDIT
from tests.infer.families.sdxl import SDXL
from tests.infer.families.shelf import FAMILIES, Shelf, least_references, open_shelf, paint, shrink_references
from tests.infer.families.z_image import Z_IMAGE
from umrgen_core.errors import ConfigError
from umrgen_core.profiles import ModelProfile
from umrgen_infer.pipelines.caches import find_caches
from umrgen_infer.pipelines.speed import find_denoiser, speed_up

COUNTING = "umrgen_counting"
GRAPHS = {KLEIN_KV: 10, Z_IMAGE: 3, QWEN_EDIT: 2, SDXL: 2}
"""For each kind of block one for the first size and one for all others; KV's blocks have more ways to be called,
without references the one that plain klein shares. Kontext's are like klein's."""


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    with open_shelf(tmp_path_factory.mktemp("families")) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _small_references(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink_references(monkeypatch)


@pytest.fixture
def graphs() -> Iterator[list[int]]:
    """The operations of each graph that was compiled, by a backend that runs them as they are."""
    seen: list[int] = []

    def compile_graph(graph: Any, _: Any) -> Callable[..., Any]:
        seen.append(len(graph.graph.nodes))
        return graph.forward

    torch.compiler.reset()
    logging.getLogger("torch.__trace").setLevel(logging.CRITICAL)  # pytest's handler makes it tell everything
    torch._dynamo.register_backend(compile_graph, name=COUNTING)
    # torch's own limit must not count: models of one family share their blocks' code, and past it nothing is compiled.
    with torch._dynamo.config.patch(recompile_limit=1):
        yield seen
    torch._dynamo.backends.registry._COMPILER_FNS.pop(COUNTING)
    torch.compiler.reset()


def profile_of(family: Family, **options: Any) -> ModelProfile:
    return ModelProfile(pipeline=family.pipeline, path="unread", **{"dtype": "float32", "device": "cpu", **options})


def load_fast(shelf: Shelf, family: Family, **options: Any) -> tuple[Any, dict[str, object]]:
    pipeline = shelf.load(family)
    return pipeline, speed_up(pipeline, profile_of(family, **options), "cpu")


def paint_size(pipeline: Any, family: Family, side_px: int, references: list[Any]) -> np.ndarray:
    return paint(pipeline, family, *references, width=side_px, height=side_px)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_with_no_option_set_the_picture_is_the_bare_pipelines_in_every_bit(family: Family, shelf: Shelf) -> None:
    references = least_references(family)
    pipeline, ran_with = load_fast(shelf, family, cache_bytes=1 << 26)
    assert ran_with == {"attention": "native"}
    for _ in range(2):  # the second from the caches
        assert (paint(pipeline, family, *references) == paint(shelf.pipeline(family), family, *references)).all()


def test_no_budget_means_no_caches(shelf: Shelf) -> None:
    assert find_caches(load_fast(shelf, KLEIN)[0]) is None
    assert find_caches(load_fast(shelf, KLEIN, cache_bytes=1)[0]) is not None


@pytest.mark.parametrize("backend", ["native", "_native_flash", "_native_math"])
def test_the_attention_backend_is_the_profiles(backend: str, shelf: Shelf) -> None:
    pipeline, ran_with = load_fast(shelf, KLEIN, attention=backend)
    assert ran_with["attention"] == backend
    assert backends(pipeline) == {backend}
    difference = np.abs(paint(pipeline, KLEIN) - paint(shelf.pipeline(KLEIN), KLEIN)).max()
    assert difference < 1e-4


def backends(pipeline: Any) -> set[str]:
    processors = (getattr(module, "processor", None) for module in find_denoiser(pipeline).modules())
    return {p._attention_backend.value for p in processors if getattr(p, "_attention_backend", None)}


def test_one_models_backend_does_not_leak_into_another(shelf: Shelf) -> None:
    before, _ = load_fast(shelf, KLEIN)
    load_fast(shelf, KLEIN, attention="_native_math")
    after, ran_with = load_fast(shelf, KLEIN_KV)
    assert ran_with["attention"] == "native"
    assert backends(before) == backends(after) == {"native"}


@pytest.mark.parametrize(
    ("family", "options", "named"),
    [
        (KLEIN, {"attention": "nonsense"}, r"^attention: .nonsense. cannot be used on cpu.*one of"),
        (KLEIN, {"attention": "flash"}, r"^attention: .*flash-attn>="),
        (KLEIN, {"attention": "sage"}, r"^attention: .*sageattention>="),
        (KLEIN, {"attention": "_native_cudnn"}, r"^attention: ._native_cudnn. cannot be used on cpu"),
        (SDXL, {"attention": "native"}, r"^attention: UNet2DConditionModel takes no backend"),
        (KLEIN, {"compile": "nonsense"}, r"^compile: .*nonsense.*inductor"),
        (KLEIN, {"offload": "model"}, r"^offload: .model. needs a GPU"),
        (KLEIN, {"offload": "sequential"}, r"^offload: .sequential. needs a GPU"),
    ],
)
def test_what_cannot_be_had_is_refused_by_the_keys_name(
    family: Family, options: dict[str, str], named: str, shelf: Shelf
) -> None:
    with pytest.raises(ConfigError, match=named):
        load_fast(shelf, family, **options)


@pytest.mark.parametrize("other", [{"compile": "eager"}, {"storage_dtype": "float8_e4m3fn"}])
def test_offload_piece_by_piece_stands_alone(other: dict[str, str], shelf: Shelf) -> None:
    with pytest.raises(ConfigError, match=r"^offload: .*choose"):
        speed_up(shelf.load(KLEIN), profile_of(KLEIN, offload="sequential", **other), "cuda")


@pytest.mark.parametrize("family", list(GRAPHS), ids=lambda family: family.name)
def test_compiled_blocks_serve_every_size_without_being_compiled_again(
    family: Family, shelf: Shelf, graphs: list[int]
) -> None:
    pipeline, ran_with = load_fast(shelf, family, compile=COUNTING)
    assert ran_with["compile"] == COUNTING
    least, pictures = len(least_references(family)), plain_pictures("red", "blue")[: family.max_references]
    sets = [pictures[:least], pictures[: least + 1]]
    for side_px in (64, 96):
        for references in sets:
            paint_size(pipeline, family, side_px, references)
    compiled = len(graphs)
    assert compiled == GRAPHS[family]
    for side_px in (80, 112):
        fast, bare = (paint_size(p, family, side_px, sets[-1]) for p in (pipeline, shelf.pipeline(family)))
        assert (fast == bare).all()
    assert len(graphs) == compiled


@pytest.mark.parametrize(
    ("family", "storage", "most"),
    [*((family, "float8_e4m3fn", 0.03) for family in FAMILIES), (KLEIN, "float8_e5m2", 0.15)],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_weights_kept_in_eight_bits_paint_nearly_the_same(
    family: Family, storage: str, most: float, shelf: Shelf
) -> None:
    references = least_references(family)
    pipeline, ran_with = load_fast(shelf, family, storage_dtype=storage)
    assert ran_with["storage_dtype"] == storage
    distance = np.abs(paint(pipeline, family, *references) - paint(shelf.pipeline(family), family, *references)).mean()
    assert 0 < distance < most


def test_blocks_kept_in_eight_bits_take_a_quarter_of_their_memory_also_after_painting(shelf: Shelf) -> None:
    def count_bytes(pipeline: Any) -> int:
        blocks = find_denoiser(pipeline).single_transformer_blocks
        return sum(weight.numel() * weight.element_size() for weight in blocks.parameters() if weight.ndim > 1)

    pipeline, _ = load_fast(shelf, KLEIN, storage_dtype="float8_e4m3fn")
    paint(pipeline, KLEIN)
    assert count_bytes(pipeline) * 4 == count_bytes(shelf.pipeline(KLEIN))


def test_nothing_is_set_for_the_whole_process(shelf: Shelf) -> None:
    def state() -> list[object]:
        cuda, cudnn = torch.backends.cuda, torch.backends.cudnn
        return [
            torch.get_float32_matmul_precision(),
            cudnn.benchmark,
            cudnn.deterministic,
            cudnn.allow_tf32,
            cuda.matmul.allow_tf32,
            cuda.matmul.allow_bf16_reduced_precision_reduction,
            cuda.flash_sdp_enabled(),
            cuda.cudnn_sdp_enabled(),
            torch.get_default_dtype(),
            torch.is_grad_enabled(),
        ]

    before = state()
    load_fast(shelf, KLEIN, storage_dtype="float8_e4m3fn", attention="_native_math", compile="eager", cache_bytes=1000)
    assert state() == before
