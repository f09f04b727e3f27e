"""What may be computed once and used again, and what a call leaves unread: the same in every bit, or told apart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.infer.families.family import Family, plain_pictures
from tests.infer.families.flux2_klein import KLEIN, KLEIN_KV
from tests.infer.families.flux_kontext import KONTEXT
from tests.infer.families.qwen_edit import QWEN_EDIT
from tests.infer.families.sdxl import ADAPTER_WEIGHTS, SDXL, build_ip_adapter
from tests.infer.families.shelf import FAMILIES, Shelf, differ, least_references, open_shelf, paint, shrink_references
from tests.infer.families.z_image import Z_IMAGE, Z_IMAGE_IMG2IMG

PROMPT = "a red cat"
GUIDANCE = {Z_IMAGE: "guidance_scale", Z_IMAGE_IMG2IMG: "guidance_scale", SDXL: "guidance_scale"}
GUIDANCE |= {QWEN_EDIT: "true_cfg_scale", KONTEXT: "true_cfg_scale"}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    with open_shelf(tmp_path_factory.mktemp("families")) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _small_references(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink_references(monkeypatch)


@torch.no_grad()
def encode(pipeline: Any, family: Family) -> dict[str, Any]:
    """The arguments that stand in for PROMPT in a call of the family."""
    if family in (KLEIN, KLEIN_KV):
        return {"prompt_embeds": pipeline.encode_prompt(PROMPT)[0]}
    if family in (Z_IMAGE, Z_IMAGE_IMG2IMG):
        return {"prompt_embeds": pipeline.encode_prompt(PROMPT, do_classifier_free_guidance=False)[0]}
    if family is QWEN_EDIT:
        seen = [pipeline.image_processor.resize(image, 64, 64) for image in least_references(family)]
        embeds, mask = pipeline.encode_prompt(PROMPT, image=seen)
        return {"prompt_embeds": embeds, "prompt_embeds_mask": mask}
    if family is SDXL:
        embeds, _, pooled, _ = pipeline.encode_prompt(PROMPT, do_classifier_free_guidance=False)
        return {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}
    embeds, pooled, _ = pipeline.encode_prompt(PROMPT)
    return {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_prompt_encoded_beforehand_paints_the_same_in_every_bit(family: Family, shelf: Shelf) -> None:
    pipeline, references = shelf.pipeline(family), least_references(family)
    said = paint(pipeline, family, *references, prompt=PROMPT)
    assert (paint(pipeline, family, *references, prompt=None, **encode(pipeline, family)) == said).all()


@pytest.mark.parametrize("family", [KLEIN, KLEIN_KV, QWEN_EDIT, KONTEXT], ids=lambda family: family.name)
def test_a_reference_encoded_beforehand_paints_the_same_in_every_bit(family: Family, shelf: Shelf) -> None:
    pipeline, (red,) = shelf.load(family), plain_pictures("red")
    fresh = paint(pipeline, family, red)
    encode_picture, kept, asked = pipeline._encode_vae_image, {}, []

    def encode_once(image: torch.Tensor, generator: Any) -> torch.Tensor:
        asked.append(content := image.numpy().tobytes())
        if content not in kept:
            kept[content] = encode_picture(image=image, generator=generator)
        return kept[content]

    pipeline._encode_vae_image = encode_once
    assert all((paint(pipeline, family, red, seed=seed) == fresh).all() == (seed == 1) for seed in (1, 1, 2))
    assert (len(asked), len(kept)) == (3, 1)


def test_kvs_keys_and_values_of_references_depend_on_the_references_alone(shelf: Shelf) -> None:
    pipeline, pictures = shelf.load(KLEIN_KV), plain_pictures("red", "blue")
    forward, kept = pipeline.transformer.forward, []

    def keep(*given: Any, **named: Any) -> Any:
        result = forward(*given, **named)
        if named.get("kv_cache_mode") == "extract":
            cache = result[1]
            # Taken out now: the pipeline empties the cache at the end of the call.
            kept.append([layer.get() for layer in (*cache.double_block_caches, *cache.single_block_caches)])
        return result

    pipeline.transformer.forward = keep
    paint(pipeline, KLEIN_KV, *pictures)
    paint(pipeline, KLEIN_KV, *pictures, seed=2, prompt="three dogs in the rain", width=128, num_inference_steps=3)
    paint(pipeline, KLEIN_KV, *reversed(pictures))
    same, swapped = (
        all(torch.equal(a, b) for one, two in zip(kept[0], other, strict=True) for a, b in zip(one, two, strict=True))
        for other in kept[1:]
    )
    assert same
    assert not swapped


def test_image_to_image_draws_the_reference_from_the_seed_so_that_it_cannot_be_kept(shelf: Shelf) -> None:
    pipeline, (red,) = shelf.pipeline(Z_IMAGE_IMG2IMG), plain_pictures("red")
    pixels = pipeline.image_processor.preprocess(red)
    with torch.no_grad():
        one, other = (
            pipeline.vae.encode(pixels).latent_dist.sample(torch.Generator().manual_seed(seed)) for seed in (1, 2)
        )
    assert not torch.equal(one, other)


def test_a_reference_of_an_adapter_is_encoded_beforehand(shelf: Shelf, tmp_path: Path) -> None:
    pipeline, (red,) = shelf.load(SDXL), plain_pictures("red")
    build_ip_adapter(tmp_path, pipeline.unet)
    pipeline.load_ip_adapter(tmp_path, subfolder="", weight_name=ADAPTER_WEIGHTS, local_files_only=True)
    with torch.no_grad():
        embeds = pipeline.prepare_ip_adapter_image_embeds([red], None, torch.device("cpu"), 1, False)  # noqa: FBT003
    seen = paint(pipeline, SDXL, ip_adapter_image=red)
    assert (paint(pipeline, SDXL, ip_adapter_image_embeds=embeds) == seen).all()


@pytest.mark.parametrize("family", list(GUIDANCE), ids=lambda family: family.name)
def test_a_negative_prompt_is_read_only_with_guidance_above_the_distilled_value(family: Family, shelf: Shelf) -> None:
    def change(**guidance: float) -> bool:
        pipeline, references = shelf.pipeline(family), least_references(family)
        plain, other = (
            paint(pipeline, family, *references, negative_prompt=words, **guidance) for words in ("", "ugly, blue")
        )
        return differ(plain, other)

    assert not change()
    assert change(**{GUIDANCE[family]: 4.0})


def test_kontext_paints_the_size_it_is_asked_for_only_when_told_the_area(shelf: Shelf) -> None:
    def size(**area: int) -> tuple[int, ...]:
        picture: np.ndarray = paint(shelf.pipeline(KONTEXT), KONTEXT, width=128, height=64, **area)
        return picture.shape[:2]

    assert size(max_area=128 * 64) == (64, 128)
    assert size(max_area=32 * 32) == (16, 32)  # 22 by 45 in the same proportion, rounded down
