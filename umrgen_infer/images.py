"""References in, PNG out."""

from __future__ import annotations

import hashlib
import io
import json
import zlib
from collections.abc import Mapping

from PIL import Image, ImageOps, PngImagePlugin

from umrgen_core.errors import RunError
from umrgen_core.files import FileStore, Shelf
from umrgen_core.jobs import ErrorCode, Pin
from umrgen_core.profiles import ModelProfile

METADATA_KEY = "umrgen"


def load_references(files: FileStore, pins: tuple[Pin, ...], profile: ModelProfile) -> tuple[Image.Image, ...]:
    """The images of a job as the model takes them, RGB, in the agent's order.

    Raises RunError invalid_reference when a file is missing or is not what its row says.
    """
    return tuple(fit_reference(_load(files, pin), profile) for pin in pins)


def _load(files: FileStore, pin: Pin) -> Image.Image:
    shelf = Shelf.OUTPUTS if pin.output_id is not None else Shelf.REFERENCES
    try:
        content = files.read(shelf, pin.disk_name)
    except OSError as error:
        raise _invalid(pin, "its file cannot be read") from error
    if hashlib.sha256(content).hexdigest() != pin.sha256:
        raise _invalid(pin, "its file is damaged")
    try:
        with Image.open(io.BytesIO(content), formats=["JPEG", "PNG", "WEBP"]) as image:
            return _flatten(image)
    except (OSError, ValueError, SyntaxError) as error:
        raise _invalid(pin, "its file cannot be decoded") from error


def _invalid(pin: Pin, reason: str) -> RunError:
    return RunError(
        ErrorCode.INVALID_REFERENCE,
        f"Reference {pin.position + 1} could not be used: {reason}. Upload it again and submit the job anew.",
        retryable=False,
    )


def _flatten(image: Image.Image) -> Image.Image:
    """RGB; what is transparent becomes white, as a viewer would show it."""
    if image.mode != "RGBA":
        return image.convert("RGB")
    ground = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(ground, image).convert("RGB")


def fit_reference(image: Image.Image, profile: ModelProfile) -> Image.Image:
    """Bring a reference to the model's native square, whole, padded with white; else leave it as it is."""
    side = profile.native_px
    if side is None or image.size == (side, side):
        return image
    return ImageOps.pad(image, (side, side), Image.Resampling.LANCZOS, color="white")


def require_picture(image: object, width: int, height: int) -> Image.Image:
    """What a pipeline returned, as RGB. Raises RunError unless it is a picture of just this size."""
    if isinstance(image, Image.Image) and image.size == (width, height):
        return image.convert("RGB")
    what = f"{type(image).__name__} of size {getattr(image, 'size', None)}"
    raise RunError(ErrorCode.MODEL_ERROR, f"The model returned {what} instead of {width}x{height}.", retryable=True)


def fit_picture(image: Image.Image, width: int, height: int, profile: ModelProfile) -> Image.Image:
    """Exactly the requested size: resized from a native square, cropped centrally from a larger one."""
    if image.size == (width, height):
        return image
    if profile.native_px is not None:
        return image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def encode_png(image: Image.Image, metadata: Mapping[str, object]) -> bytes:
    """Lossless PNG with `metadata` as JSON in a tEXt chunk. Run-length encoding is fast and small enough."""
    info = PngImagePlugin.PngInfo()
    info.add_text(METADATA_KEY, json.dumps(metadata))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=info, compress_level=1, compress_type=zlib.Z_RLE)
    return buffer.getvalue()
