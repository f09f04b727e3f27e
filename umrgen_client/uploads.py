"""What can be given as a reference: names that the service knows, and pictures that must be uploaded first."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from typing import Any, BinaryIO, Protocol, runtime_checkable

from umrgen_client.records import JobStatus, Picture, Reference

MAX_UPLOAD_BYTES = 10 << 20
"""The service takes no larger file."""
_NAMES = re.compile(r"image_\d{37,}\.(jpg|png|webp)|\S*/(references|outputs)/\S+\?session_id=\S+")
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")


@runtime_checkable
class PillowImage(Protocol):
    """A picture of Pillow, which this package does not need."""

    mode: str

    def save(self, fp: Any, format: str | None = None, **params: Any) -> None:  # noqa: A002 - Pillow's name
        """Encode into `fp`."""

    def convert(self, mode: str) -> Any:
        """The picture in another mode."""


Uploadable = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | PillowImage
ReferenceLike = Uploadable | Reference | JobStatus | Picture


def find_name(reference: ReferenceLike) -> str | None:
    """The name by which the service knows `reference` already; None for what must be uploaded.

    A string counts as a name when it has the form of one; every other string is a path. Raises ValueError for a
    job that has no picture.
    """
    if isinstance(reference, Reference):
        return reference.filename
    if isinstance(reference, Picture):
        reference = reference.job
    if isinstance(reference, JobStatus):
        if reference.image_url is None:
            raise ValueError(f"job {reference.id} has no picture to refer to: it is {reference.state}")
        return reference.image_url
    return reference if isinstance(reference, str) and _NAMES.fullmatch(reference) else None


def read_upload(source: Uploadable) -> tuple[str, bytes]:
    """File name and content of a picture. Raises OSError for a file that cannot be read."""
    if isinstance(source, bytes | bytearray | memoryview):
        return "image", bytes(source)
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        return path.name, path.read_bytes()
    if isinstance(source, PillowImage):
        return _encode(source)
    if hasattr(source, "read"):
        return "image", bytes(source.read())
    raise TypeError(f"a reference is a path, bytes, a binary file or a Pillow image, not {type(source).__name__}")


def _encode(image: PillowImage) -> tuple[str, bytes]:
    """Without loss where the service takes a file of that size."""
    buffer = io.BytesIO()
    plain = image if image.mode in _PNG_MODES else image.convert("RGB")
    plain.save(buffer, format="PNG")
    if buffer.tell() <= MAX_UPLOAD_BYTES:
        return "image.png", buffer.getvalue()
    buffer = io.BytesIO()
    plain.convert("RGB").save(buffer, format="JPEG", quality=95, subsampling=0)
    return "image.jpg", buffer.getvalue()
