"""Reference pictures: drawn things that look like other people's images.

Noise, texture, uneven light, blur, tilt, odd aspect ratios; some for colour show no clean shape.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from training.palette import COLOURS, Rgb, vary
from training.render import Picture, mask_of
from training.scene import NATIVE_PX, SHAPES, Thing

Floats = NDArray[np.floating[Any]]  # (64, 64, 3), 0..1
_NEUTRAL = ("white", "white", "gray", "black")
_MIN_CONTRAST = 0.45


@dataclass(frozen=True, slots=True)
class Reference:
    """A picture and the thing that it shows."""

    thing: Thing
    picture: Picture


def _smooth_field(rng: np.random.Generator, cells: int) -> NDArray[np.floating[Any]]:
    """(64, 64, 1), mean 0, about ±1: low-frequency texture."""
    coarse = Image.fromarray(rng.normal(0, 1, (cells, cells)).astype(np.float32))
    field = np.asarray(coarse.resize((NATIVE_PX, NATIVE_PX), Image.Resampling.BICUBIC), np.float32)
    return field[..., None]


def _light(rng: np.random.Generator) -> NDArray[np.floating[Any]]:
    """(64, 64, 1) gain of light falling off across the picture, mean 1."""
    ramp = np.linspace(-1, 1, NATIVE_PX, dtype=np.float32)
    angle, depth = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.16)
    slope = np.cos(angle) * ramp[None, :] + np.sin(angle) * ramp[:, None]
    return (1 + depth * slope)[..., None].astype(np.float32)


def photographed(canvas: Floats, rng: np.random.Generator) -> Floats:
    """The canvas with the flaws of a camera."""
    canvas = canvas * _light(rng)
    if rng.random() < 0.5:
        canvas = canvas + _smooth_field(rng, int(rng.integers(4, 16))) * rng.uniform(0, 0.045)
    if rng.random() < 0.4:
        image = Image.fromarray((np.clip(canvas, 0, 1) * 255).astype(np.uint8))
        soft = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.1)))
        canvas = np.asarray(soft, np.float32) / 255
    return canvas + rng.normal(0, rng.uniform(0, 0.045), canvas.shape).astype(np.float32)


def _ground(rgb: Rgb, colour: str, rng: np.random.Generator) -> Rgb:
    """A background that the thing stands out from: mostly neutral."""
    while True:
        neutral = rng.random() < 0.75
        name = str(rng.choice(_NEUTRAL if neutral else COLOURS))
        ground = vary(name, rng)
        if name != colour and float(np.abs(ground - rgb).max()) > _MIN_CONTRAST:
            return ground


def _bars(canvas: Floats, box: tuple[int, int]) -> Floats:
    """White beyond the box (half width, half height), as if a longer image had been fitted."""
    half_x, half_y = box
    fitted = np.ones_like(canvas)
    mid = NATIVE_PX // 2
    rows, columns = slice(mid - half_y, mid + half_y), slice(mid - half_x, mid + half_x)
    fitted[rows, columns] = canvas[rows, columns]
    return fitted


def _blob(rng: np.random.Generator) -> NDArray[np.floating[Any]]:
    """(64, 64) coverage of something without a name: what is red need not be a shape."""
    field = _smooth_field(rng, 5)[..., 0]
    ramp = np.linspace(-1, 1, NATIVE_PX, dtype=np.float32)
    bowl = 1 - rng.uniform(1.6, 3.2) * (ramp[None, :] ** 2 + ramp[:, None] ** 2)
    return np.clip((field * 0.35 + bowl) * 6, 0, 1)


def make_reference(rng: np.random.Generator, *, for_shape: bool) -> Reference:
    """One reference; for colour alone the thing may be a blob or fill the frame."""
    colour = str(rng.choice(COLOURS))
    rgb = vary(colour, rng)
    half = [32, 32]
    if rng.random() < 0.2:
        half[int(rng.integers(2))] = int(rng.integers(18, 31))
    radius = rng.uniform(12.5, min(22.0, min(half) - 3.0)) if min(half) > 18 else 13.0
    room_x, room_y = half[0] - radius * 1.08 - 1, half[1] - radius * 1.08 - 1
    thing = Thing(
        str(rng.choice(SHAPES)),
        colour,
        rgb,
        32 + rng.uniform(-1, 1) * max(room_x, 0),
        32 + rng.uniform(-1, 1) * max(room_y, 0),
        radius,
        rng.uniform(-8, 8) if rng.random() < 0.4 else 0.0,
    )
    fills_frame = not for_shape and rng.random() < 0.2
    if fills_frame:
        mask = np.ones((NATIVE_PX, NATIVE_PX), np.float32)
    elif not for_shape and rng.random() < 0.3:
        mask = _blob(rng)
    else:
        mask = mask_of(thing.shape, thing.x_px, thing.y_px, thing.radius_px, thing.tilt_deg)
    plain_white = rng.random() < 0.3 and float(np.abs(1 - rgb).max()) > _MIN_CONTRAST
    ground = np.ones(3, np.float32) if plain_white else _ground(rgb, colour, rng)
    canvas = ground * (1 - mask[..., None]) + rgb * mask[..., None]
    if rng.random() < 0.6:
        canvas = photographed(canvas.astype(np.float32), rng)
    canvas = _bars(canvas.astype(np.float32), (half[0], half[1]))
    return Reference(thing, (np.clip(canvas, 0, 1) * 255 + 0.5).astype(np.uint8))
