"""A picture leaves the device as eight bits a channel, a quarter of what it was computed in."""

from __future__ import annotations

import torch
from PIL import Image

from umrgen_core.errors import RunError
from umrgen_core.jobs import ErrorCode

OUTPUT_TYPE = "pt"
"""What the pipeline is asked for: pixels as a tensor, still on its device."""
WHITE = 255


def to_pictures(images: torch.Tensor, count: int) -> list[Image.Image]:
    """The pictures of a call for `count` of them; see `to_picture`."""
    if not (isinstance(images, torch.Tensor) and len(images) == count):
        raise _refuse(f"no {count} pictures")
    return [to_picture(image) for image in images.split(1)]


def to_picture(images: torch.Tensor) -> Image.Image:
    """The one picture of a batch of one.

    `images` is what a pipeline returns for OUTPUT_TYPE: (1, 3, height, width), floating, from 0 to 1, on any
    device. Rounded in float32 as diffusers' own way to PIL does, so that both give the same picture.
    Raises RunError `model_error` for anything else, NaN above all, which would come out as black.
    """
    if not (isinstance(images, torch.Tensor) and images.ndim == 4 and images.shape[:2] == (1, 3)):
        raise _refuse("no picture")
    pixels = images[0].permute(1, 2, 0).to(torch.float32)
    # Both tests before the copy, which waits for the device anyway; NaN is neither within nor without the range.
    sound = ((pixels >= 0) & (pixels <= 1)).all()
    eight_bits = (pixels * WHITE).round_().to(torch.uint8).contiguous().cpu()
    if not sound:
        raise _refuse("a picture that is not made of numbers from 0 to 1")
    return Image.fromarray(eight_bits.numpy())


def _refuse(what: str) -> RunError:
    return RunError(ErrorCode.MODEL_ERROR, f"The model returned {what}.", retryable=True)
