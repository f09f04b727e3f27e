"""Qwen-Image-Edit: a processor that does without torchvision, and the size of the references."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus
from transformers import ProcessorMixin, Qwen2VLProcessor

from umrgen_core.profiles import ModelProfile


class PictureProcessor(Qwen2VLProcessor):
    """Qwen2-VL's processor for text and pictures. Only its part for video, left out here, needs torchvision."""

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: Any = None, **_: Any) -> None:
        self.image_token, self.video_token = "<|image_pad|>", "<|video_pad|>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)


def load_parts(folder: Path) -> dict[str, Any]:
    """What from_pretrained is handed because it could not load it itself."""
    return {"processor": PictureProcessor.from_pretrained(str(folder / "processor"), local_files_only=True)}


@contextmanager
def sized_references(profile: ModelProfile) -> Iterator[None]:
    """Bring references to the profile's area.

    The pipeline scales each of them, also upwards, to an area that it reads from a constant of its module at
    every call: there is no argument for it. One thread paints, so nobody sees the constant changed.
    """
    usual = pipeline_qwenimage_edit_plus.VAE_IMAGE_SIZE
    pipeline_qwenimage_edit_plus.VAE_IMAGE_SIZE = profile.reference_area_px or usual
    try:
        yield
    finally:
        pipeline_qwenimage_edit_plus.VAE_IMAGE_SIZE = usual
