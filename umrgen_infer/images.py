"""References in, pictures out."""

from __future__ import annotations

import hashlib
import io

from PIL import Image

from umrgen_core.errors import RunError
from umrgen_core.files import FileStore, Shelf
from umrgen_core.jobs import ErrorCode, Pin
from umrgen_core.profiles import ModelProfile
from umrgen_infer.reference_fit import ReferenceFit

DRAFT_FACTOR = 2
"""A JPEG is decoded at an eighth, a quarter or half its size if that is this many times what is needed, or more."""


def load_reference(files: FileStore, pin: Pin, fit: ReferenceFit) -> Image.Image:
    """One image of a job as its model takes it, RGB.

    Raises RunError invalid_reference when its file is missing or is not what its row says.
    """
    shelf = Shelf.OUTPUTS if pin.output_id is not None else Shelf.REFERENCES
    try:
        content = files.read(shelf, pin.disk_name)
    except OSError as error:
        raise _invalid(pin, "its file cannot be read") from error
    if hashlib.sha256(content).hexdigest() != pin.sha256:
        raise _invalid(pin, "its file is damaged")
    try:
        with Image.open(io.BytesIO(content), formats=["JPEG", "PNG", "WEBP"]) as image:
            width, height = fit.scaled_size(*image.size)
            image.draft("RGB", (width * DRAFT_FACTOR, height * DRAFT_FACTOR))
            return fit.fit(image)
    except (OSError, ValueError, SyntaxError) as error:
        raise _invalid(pin, "its file cannot be decoded") from error


def _invalid(pin: Pin, reason: str) -> RunError:
    return RunError(
        ErrorCode.INVALID_REFERENCE,
        f"Reference {pin.position + 1} could not be used: {reason}. Upload it again and submit the job anew.",
        retryable=False,
    )


def require_picture(image: object, width: int, height: int) -> Image.Image:
    """What a pipeline returned, as RGB. Raises RunError unless it is a picture of just this size."""
    if isinstance(image, Image.Image) and image.size == (width, height):
        return image if image.mode == "RGB" else image.convert("RGB")
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
