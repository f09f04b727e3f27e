"""What was encoded once is used again: the same picture in every bit, within its bytes, and never somebody else's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.infer.families.family import Family, plain_pictures
from tests.infer.families.flux2_klein import KLEIN, KLEIN_KV
from tests.infer.families.flux_kontext import KONTEXT
from tests.infer.families.qwen_edit import QWEN_EDIT
from tests.infer.families.sdxl import ADAPTER_WEIGHTS, SDXL, build_ip_adapter
from tests.infer.families.shelf import FAMILIES, Shelf, least_references, open_shelf, paint, shrink_references
from tests.infer.families.z_image import Z_IMAGE, Z_IMAGE_IMG2IMG
from umrgen_infer.pipelines.caches import ByteBudget, PipelineCaches, find_caches, freeze, install_caches

ROOMY = 1 << 26
NOTHING = {"prompt_hits": 0, "prompt_misses": 0, "reference_hits": 0, "reference_misses": 0}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    with open_shelf(tmp_path_factory.mktemp("families")) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _small_references(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink_references(monkeypatch)


def load_cached(shelf: Shelf, family: Family, most_bytes: int = ROOMY) -> tuple[Any, PipelineCaches]:
    pipeline = shelf.load(family)
    install_caches(pipeline, PipelineCaches(most_bytes))
    caches = find_caches(pipeline)
    assert caches is not None
    return pipeline, caches


def counts(**changed: int) -> dict[str, int]:
    return {**NOTHING, **changed}


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_prompt_used_again_paints_the_same_in_every_bit(family: Family, shelf: Shelf) -> None:
    references, plain = least_references(family), shelf.pipeline(family)
    pipeline, caches = load_cached(shelf, family)
    for seed in (1, 1, 2):
        fresh = paint(plain, family, *references, seed=seed)
        assert (paint(pipeline, family, *references, seed=seed) == fresh).all()
    other = paint(plain, family, *references, prompt="a blue dog")
    assert (paint(pipeline, family, *references, prompt="a blue dog") == other).all()
    assert (caches.counts["prompt_misses"], caches.counts["prompt_hits"]) == (2, 2)


@pytest.mark.parametrize("family", [KLEIN, KLEIN_KV, QWEN_EDIT, KONTEXT], ids=lambda family: family.name)
def test_a_reference_used_again_paints_the_same_in_every_bit(family: Family, shelf: Shelf) -> None:
    plain = shelf.pipeline(family)
    pipeline, caches = load_cached(shelf, family)
    red, blue = plain_pictures("red", "blue")
    almost_red = red.copy()
    almost_red.putpixel((63, 63), (254, 0, 0))
    orders = [(red,), (red,), (almost_red,), (blue,)]
    orders += [(red, blue), (blue, red)] if family.max_references > 1 else []
    for references in orders:
        assert (paint(pipeline, family, *references) == paint(plain, family, *references)).all()
    misses, asked = caches.counts["reference_misses"], sum(len(references) for references in orders)
    assert (misses, caches.counts["reference_hits"]) == (3, asked - 3)


def test_a_reference_of_an_adapter_is_encoded_once(shelf: Shelf, tmp_path: Path) -> None:
    pipeline, (red, blue) = shelf.load(SDXL), plain_pictures("red", "blue")
    build_ip_adapter(tmp_path, pipeline.unet)
    pipeline.load_ip_adapter(tmp_path, subfolder="", weight_name=ADAPTER_WEIGHTS, local_files_only=True)
    fresh = [paint(pipeline, SDXL, ip_adapter_image=image) for image in (red, red, blue)]
    install_caches(pipeline, caches := PipelineCaches(ROOMY))
    again = [paint(pipeline, SDXL, ip_adapter_image=image) for image in (red, red, blue)]
    assert np.array_equal(fresh, again)
    assert (caches.counts["reference_misses"], caches.counts["reference_hits"]) == (2, 1)


def test_latents_drawn_from_the_seed_are_not_kept(shelf: Shelf) -> None:
    pipeline, caches = load_cached(shelf, Z_IMAGE_IMG2IMG)
    plain, (red,) = shelf.pipeline(Z_IMAGE_IMG2IMG), plain_pictures("red")
    for seed in (1, 2):
        fresh = paint(plain, Z_IMAGE_IMG2IMG, red, seed=seed)
        assert (paint(pipeline, Z_IMAGE_IMG2IMG, red, seed=seed) == fresh).all()
    assert caches.take_counts() == counts(prompt_misses=1, prompt_hits=1)


def test_counts_are_taken_for_each_painting(shelf: Shelf) -> None:
    pipeline, caches = load_cached(shelf, KLEIN)
    red, blue = plain_pictures("red", "blue")
    paint(pipeline, KLEIN, red)
    assert caches.take_counts() == counts(prompt_misses=1, reference_misses=1)
    paint(pipeline, KLEIN, red, blue)
    assert caches.take_counts() == counts(prompt_hits=1, reference_hits=1, reference_misses=1)
    assert caches.take_counts() == NOTHING
    assert caches.counts == counts(prompt_misses=1, prompt_hits=1, reference_misses=2, reference_hits=1)


def test_a_salt_keeps_prompts_of_another_text_encoder_apart_but_not_references(shelf: Shelf) -> None:
    pipeline, caches = load_cached(shelf, KLEIN)
    (red,) = plain_pictures("red")
    paint(pipeline, KLEIN, red)
    caches.salt = (("a-lora", 0.5),)
    paint(pipeline, KLEIN, red)
    caches.salt = ()
    paint(pipeline, KLEIN, red)
    assert caches.take_counts() == counts(prompt_misses=2, prompt_hits=1, reference_misses=1, reference_hits=2)


def test_cleared_caches_hold_nothing(shelf: Shelf) -> None:
    pipeline, caches = load_cached(shelf, KLEIN)
    paint(pipeline, KLEIN, *plain_pictures("red"))
    assert caches.kept_bytes > 0
    caches.clear()
    assert caches.kept_bytes == 0
    caches.take_counts()
    paint(pipeline, KLEIN, *plain_pictures("red"))
    assert caches.take_counts() == counts(prompt_misses=1, reference_misses=1)


def test_the_callers_hands_never_reach_what_is_kept(shelf: Shelf) -> None:
    pipeline, _ = load_cached(shelf, Z_IMAGE)
    with torch.no_grad():
        first, _ = pipeline.encode_prompt("a cat", do_classifier_free_guidance=False)
        said = first[0].clone()
        for embeds in (first, pipeline.encode_prompt("a cat", do_classifier_free_guidance=False)[0]):
            embeds[0].zero_()
            embeds.append(None)
        (again,), _ = pipeline.encode_prompt("a cat", do_classifier_free_guidance=False)
    assert torch.equal(again, said)


def test_a_list_of_prompts_that_the_pipeline_rewrites_is_known_by_what_was_asked(shelf: Shelf) -> None:
    pipeline, caches = load_cached(shelf, Z_IMAGE)
    with torch.no_grad():
        for _ in range(2):
            pipeline.encode_prompt(["a cat"], do_classifier_free_guidance=False)
    assert caches.take_counts() == counts(prompt_misses=1, prompt_hits=1)


def test_what_was_kept_in_inference_mode_serves_without(shelf: Shelf) -> None:
    pipeline, caches = load_cached(shelf, KLEIN)
    (red,) = plain_pictures("red")
    with torch.inference_mode():
        first = paint(pipeline, KLEIN, red)
    second = paint(pipeline, KLEIN, red)
    assert (first == second).all()
    assert caches.counts == counts(prompt_misses=1, prompt_hits=1, reference_misses=1, reference_hits=1)


def test_a_pipeline_without_caches_has_none_to_find(shelf: Shelf) -> None:
    assert find_caches(shelf.pipeline(KLEIN)) is None


def content(number: float, size: int = 64) -> Any:
    return freeze([torch.full((size,), float(number))])


def test_the_least_recently_used_is_forgotten_first() -> None:
    kept = ByteBudget(3 * 512)  # 64 numbers of 4 bytes asked and as many answered
    for number in (1, 2, 3):
        kept.keep(content(number), torch.full((64,), float(number)))
    assert kept.find(content(1)) is not None
    kept.keep(content(4), torch.full((64,), 4.0))
    assert [kept.find(content(number)) is not None for number in (1, 2, 3, 4)] == [True, False, True, True]
    assert kept.used_bytes == 3 * 512


def test_what_is_larger_than_the_budget_is_not_kept_and_pushes_nothing_out() -> None:
    kept = ByteBudget(512)
    kept.keep(content(1), torch.zeros(64))
    kept.keep(content(2), torch.zeros(65))
    assert kept.find(content(1)) is not None
    assert kept.find(content(2)) is None


def test_bytes_never_pass_the_budget() -> None:
    kept, rng = ByteBudget(10_000), np.random.default_rng(1)
    for number in range(500):
        kept.keep(content(number, int(rng.integers(1, 1500))), torch.zeros(int(rng.integers(1, 1500))))
        assert 0 <= kept.used_bytes <= 10_000
        if number % 50 == 0:
            kept.clear()


def test_a_forged_sum_is_no_match() -> None:
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    forged = picture.flatten().view(-1, 64).flip(0).reshape(picture.shape)
    one, other = freeze([picture]), freeze([forged])
    assert one is not None and other is not None
    assert (one.key, hash(one)) == (other.key, hash(other))
    assert one != other
    assert one == freeze([picture.clone()])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, True),
        (1, 1.0),
        ("1", 1),
        (None, ""),
        (["a", "b"], ["ab"]),
        (["a", ["b"]], [["a"], "b"]),
        ({"a": 1}, {"b": 1}),
        (torch.zeros(2, 3), torch.zeros(3, 2)),
        (torch.zeros(2), torch.zeros(2, dtype=torch.bfloat16)),
        (torch.zeros(2), -torch.zeros(2)),
        (Image.new("RGB", (2, 3)), Image.new("RGB", (3, 2))),
        (Image.new("L", (2, 2)), Image.new("P", (2, 2))),
    ],
)
def test_unlike_arguments_are_unlike_content(one: Any, other: Any) -> None:
    assert freeze(one) == freeze(one)
    assert freeze(one) != freeze(other)


def test_arguments_that_cannot_be_compared_are_never_answered_from_memory() -> None:
    calls: list[Any] = []

    def encode(prompt: Any, device: Any = None) -> torch.Tensor:
        calls.append(prompt)
        return torch.zeros(1)

    caches = PipelineCaches(ROOMY)
    remembered = caches.remember(encode, "prompt")
    for _ in range(2):
        remembered(object())
    assert len(calls) == 2
    assert freeze(object()) is None
    assert freeze([torch.zeros(2, dtype=torch.complex128)]) is None
    assert caches.counts == NOTHING
