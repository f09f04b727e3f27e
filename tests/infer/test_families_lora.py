"""LoRAs on every family, through the rack, diffusers and peft: they count while applied, and leave nothing behind."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.infer.families.family import Family, plain_pictures, seeded
from tests.infer.families.flux_kontext import KONTEXT
from tests.infer.families.lora import WEIGHTS, build_lightning_lora
from tests.infer.families.qwen_edit import QWEN_EDIT
from tests.infer.families.sdxl import SDXL
from tests.infer.families.shelf import FAMILIES, Shelf, differ, least_references, open_shelf, paint, shrink_references
from tests.infer.families.z_image import Z_IMAGE, Z_IMAGE_IMG2IMG
from umrgen_core.loras import LoraShelf
from umrgen_core.profiles import ModelProfile
from umrgen_infer.pipelines.caches import PipelineCaches, install_caches
from umrgen_infer.pipelines.loras import LoraRack

RANK = 2
STRONG = ("style", 1.0)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    with open_shelf(tmp_path_factory.mktemp("families")) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _small_references(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink_references(monkeypatch)


def write_lora(folder: Path, parts: dict[str, nn.Module], ending: str, seed: int = 0) -> None:
    """`style.safetensors` below `folder`: a pair of matrices for each linear layer whose name ends so."""
    weights = {}
    with seeded(seed):
        for part, model in parts.items():
            for name, layer in model.named_modules():
                if isinstance(layer, nn.Linear) and name.endswith(ending):
                    weights[f"{part}.{name}.lora_A.weight"] = torch.randn(RANK, layer.in_features) / 2
                    weights[f"{part}.{name}.lora_B.weight"] = torch.randn(layer.out_features, RANK) / 2
    assert weights
    (folder / "mine").mkdir(parents=True)
    save_file(weights, folder / "mine" / "style.safetensors")


def make_rack(pipeline: Any, folder: Path) -> LoraRack:
    shelf = LoraShelf(str(folder))
    profile = ModelProfile(pipeline=type(pipeline).__name__, path="x", dtype="float32", loras=2)
    return LoraRack(pipeline, lambda name: shelf.find_file("mine", name), profile)


def denoiser_of(pipeline: Any) -> dict[str, nn.Module]:
    return {"unet": pipeline.unet} if hasattr(pipeline, "unet") else {"transformer": pipeline.transformer}


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_lora_counts_while_it_is_applied_and_leaves_nothing_behind(
    family: Family, shelf: Shelf, tmp_path: Path
) -> None:
    pipeline, references = shelf.load(family), least_references(family)
    write_lora(tmp_path, denoiser_of(pipeline), ("to_q", "to_k", "to_v"))
    layers = {name: id(layer) for part in denoiser_of(pipeline).values() for name, layer in part.named_modules()}
    plain = paint(pipeline, family, *references)
    rack, pictures = make_rack(pipeline, tmp_path), {}
    for strength in (1.0, 0.5, 0.0, 1.0):
        with rack.applied([("style", strength)]):
            again = paint(pipeline, family, *references)
        assert (pictures.setdefault(strength, again) == again).all()
    assert differ(pictures[1.0], plain)
    assert differ(pictures[0.5], pictures[1.0])
    assert (pictures[0.0] == plain).all()
    assert (paint(pipeline, family, *references) == plain).all()
    assert layers == {
        name: id(layer) for part in denoiser_of(pipeline).values() for name, layer in part.named_modules()
    }


@pytest.mark.parametrize("family", [SDXL, KONTEXT], ids=lambda family: family.name)
def test_a_lora_of_the_text_encoder_keeps_its_prompts_apart_from_the_others(
    family: Family, shelf: Shelf, tmp_path: Path
) -> None:
    pipeline = shelf.load(family)
    write_lora(tmp_path, {"text_encoder": pipeline.text_encoder}, ("q_proj", "v_proj", "fc1"))
    rack, bare = make_rack(pipeline, tmp_path), paint(pipeline, family)
    with rack.applied([STRONG]):
        styled = paint(pipeline, family)
    assert differ(styled, bare)
    caches = PipelineCaches(1 << 20)
    install_caches(pipeline, caches)
    for _ in range(2):
        assert (paint(pipeline, family) == bare).all()
        with rack.applied([STRONG]):
            assert (paint(pipeline, family) == styled).all()
        with rack.applied([("style", 0.0)]):
            assert (paint(pipeline, family) == bare).all()
    assert (caches.counts["prompt_misses"], caches.counts["prompt_hits"]) == (3, 3)


def test_a_lora_of_the_denoiser_alone_leaves_the_kept_prompts_of_use(shelf: Shelf, tmp_path: Path) -> None:
    pipeline = shelf.load(SDXL)
    write_lora(tmp_path, denoiser_of(pipeline), "to_q")
    rack, caches = make_rack(pipeline, tmp_path), PipelineCaches(1 << 20)
    install_caches(pipeline, caches)
    paint(pipeline, SDXL)
    with rack.applied([STRONG]):
        paint(pipeline, SDXL)
    assert (caches.counts["prompt_misses"], caches.counts["prompt_hits"]) == (1, 1)


def test_a_pipeline_over_the_same_weights_has_the_lora_too(shelf: Shelf, tmp_path: Path) -> None:
    pipeline = shelf.load(Z_IMAGE)
    write_lora(tmp_path, denoiser_of(pipeline), "to_q")
    parts = {**pipeline.components, "scheduler": copy.deepcopy(pipeline.scheduler)}
    from_picture, (red,) = diffusers.ZImageImg2ImgPipeline(**parts), plain_pictures("red")
    rack, plain = make_rack(pipeline, tmp_path), paint(from_picture, Z_IMAGE_IMG2IMG, red)
    with rack.applied([STRONG]):
        assert differ(paint(from_picture, Z_IMAGE_IMG2IMG, red), plain)
    assert (paint(from_picture, Z_IMAGE_IMG2IMG, red) == plain).all()


class TestLightning:
    """The LoRA that belongs to a model, in the layout of the published files, and one of a request beside it."""

    @pytest.fixture
    def pipeline(self, shelf: Shelf, tmp_path: Path) -> Any:
        loaded = shelf.load(QWEN_EDIT)
        build_lightning_lora(tmp_path / "mine", loaded.transformer)
        (tmp_path / "mine" / WEIGHTS).rename(tmp_path / "mine" / "style.safetensors")
        return loaded

    @staticmethod
    def paint_edit(pipeline: Any) -> np.ndarray:
        return paint(pipeline, QWEN_EDIT, *plain_pictures("red"))

    def test_it_is_read_as_it_is_published(self, pipeline: Any, tmp_path: Path) -> None:
        rack, plain = make_rack(pipeline, tmp_path), self.paint_edit(pipeline)
        with rack.applied([STRONG]):
            styled = self.paint_edit(pipeline)
        pipeline.load_lora_weights(tmp_path / "mine", weight_name="style.safetensors", local_files_only=True)
        assert differ(styled, plain)
        assert (self.paint_edit(pipeline) == styled).all()

    def test_one_of_a_request_is_added_to_the_fused_one_and_taken_away_again(
        self, pipeline: Any, tmp_path: Path
    ) -> None:
        pipeline.load_lora_weights(tmp_path / "mine", weight_name="style.safetensors", local_files_only=True)
        pipeline.fuse_lora()
        pipeline.unload_lora_weights()
        rack, fused = make_rack(pipeline, tmp_path), self.paint_edit(pipeline)
        with rack.applied([STRONG]):
            assert differ(self.paint_edit(pipeline), fused)
        with rack.applied([("style", -1.0)]):
            undone = self.paint_edit(pipeline)
        assert (self.paint_edit(pipeline) == fused).all()
        assert np.allclose(undone, self.paint_edit(shelf_copy(tmp_path)), atol=1e-4)


def shelf_copy(tmp_path: Path) -> Any:
    return Shelf(tmp_path / "again").load(QWEN_EDIT)
