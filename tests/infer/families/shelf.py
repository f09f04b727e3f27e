"""Every family, built and loaded once for each test module, and one way to call them all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus

from tests.infer.families.family import Family, plain_pictures
from tests.infer.families.flux2_klein import KLEIN, KLEIN_KV
from tests.infer.families.flux_kontext import KONTEXT
from tests.infer.families.qwen_edit import QWEN_EDIT, load_processor
from tests.infer.families.sdxl import SDXL
from tests.infer.families.z_image import Z_IMAGE, Z_IMAGE_IMG2IMG

FAMILIES = [KLEIN, KLEIN_KV, Z_IMAGE, Z_IMAGE_IMG2IMG, QWEN_EDIT, SDXL, KONTEXT]
SMALL_AREA_PX = 64 * 64
STEPS = 2


class Shelf:
    """Families below one folder."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._pipelines: dict[Family, Any] = {}

    def folder(self, family: Family) -> Path:
        """Where the family lies; it is built on the first call."""
        folder = self._root / family.name
        if not folder.exists():
            family.build(folder, 0)
        return folder

    def pipeline(self, family: Family) -> Any:
        """The family's pipeline, shared by all who ask: leave it as it was."""
        if family not in self._pipelines:
            self._pipelines[family] = self.load(family)
        return self._pipelines[family]

    def load(self, family: Family) -> Any:
        """A pipeline of one's own."""
        folder = self.folder(family)
        parts = {"processor": load_processor(folder)} if family is QWEN_EDIT else {}
        pipeline_class = getattr(diffusers, family.pipeline)
        pipeline = pipeline_class.from_pretrained(folder, local_files_only=True, use_safetensors=True, **parts)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline


@contextmanager
def open_shelf(root: Path) -> Iterator[Shelf]:
    """A shelf, and one thread for torch meanwhile: more of them only wait for each other over tensors this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Shelf(root)
    torch.set_num_threads(threads)


def shrink_references(monkeypatch: pytest.MonkeyPatch) -> None:
    """Qwen's pipeline brings every reference to a megapixel: seconds of work that show nothing more."""
    monkeypatch.setattr(pipeline_qwenimage_edit_plus, "VAE_IMAGE_SIZE", SMALL_AREA_PX)
    monkeypatch.setattr(pipeline_qwenimage_edit_plus, "CONDITION_IMAGE_SIZE", SMALL_AREA_PX)


def least_references(family: Family) -> list[Any]:
    """As few references as the pipeline accepts."""
    return plain_pictures("red") if family.needs_reference else []


def paint(pipeline: Any, family: Family, *references: Any, seed: int = 1, **changes: Any) -> np.ndarray:
    """Paint in two steps. Pixels from 0 to 1, shape (height, width, 3)."""
    arguments = {**family.arguments, "prompt": "a red cat", "width": family.side_px, "height": family.side_px}
    arguments |= {"num_inference_steps": STEPS, "generator": torch.Generator("cpu").manual_seed(seed)}
    if references:
        arguments["image"] = references[0] if family.max_references == 1 else list(references)
    return pipeline(**{**arguments, **changes}, output_type="np").images[0]


def differ(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two pictures differ in eight bits."""
    first, second = ((picture * 255).round().astype(np.uint8) for picture in (one, other))
    return bool((first != second).any())
