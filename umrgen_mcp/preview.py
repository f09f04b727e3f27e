"""A picture small enough to lie inside an answer."""

from __future__ import annotations

import io
from dataclasses import dataclass

from PIL import Image

MAX_PREVIEW_BYTES = 750_000
"""As base64 it is 1 MB, the most that hosts take in one answer."""
MAX_SIDE_PX = 1024
QUALITIES = (85, 70, 50, 30)


@dataclass(frozen=True, slots=True)
class Preview:
    """An encoded picture of at most MAX_PREVIEW_BYTES; `whole` is false where it was made smaller."""

    data: bytes
    mime_type: str
    whole: bool


def make_preview(png: bytes, max_bytes: int = MAX_PREVIEW_BYTES) -> Preview:
    """The PNG as it is, or a JPEG with sides of at most MAX_SIDE_PX, with less quality until it fits."""
    if len(png) <= max_bytes:
        return Preview(png, "image/png", whole=True)
    with Image.open(io.BytesIO(png), formats=["PNG"]) as picture:
        small = picture.convert("RGB")
    small.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX), Image.Resampling.LANCZOS)
    while True:
        for quality in QUALITIES:
            buffer = io.BytesIO()
            small.save(buffer, "JPEG", quality=quality)
            if buffer.tell() <= max_bytes:
                return Preview(buffer.getvalue(), "image/jpeg", whole=False)
        small.thumbnail((small.width // 2, small.height // 2))
