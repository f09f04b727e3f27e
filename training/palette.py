"""The named colours: far enough apart that a program can tell which one was painted."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Rgb = NDArray[np.floating[Any]]  # shape (3,), 0..1

_HEX = {
    "red": "dc1e28",
    "orange": "ff8c00",
    "yellow": "fadc1e",
    "green": "1e9637",
    "cyan": "32c8d7",
    "blue": "2346d2",
    "purple": "7d28a5",
    "pink": "ff8cc3",
    "brown": "784623",
    "black": "141414",
    "gray": "828282",
    "white": "fafafa",
}
COLOURS: tuple[str, ...] = tuple(_HEX)


def _rgb_from_hex(text: str) -> Rgb:
    return np.array([int(text[i : i + 2], 16) for i in (0, 2, 4)], np.float32) / 255


PALETTE: dict[str, Rgb] = {name: _rgb_from_hex(text) for name, text in _HEX.items()}
_TABLE = np.stack([PALETTE[name] for name in COLOURS])


def opponent(rgb: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Lightness and two chroma axes of sRGB values (..., 3): a cheap perceptual space.

    Chroma counts more than lightness, so that a shaded red stays red.
    """
    light = rgb @ np.array([0.30, 0.55, 0.15], np.float32)
    red_green = rgb[..., 0] - rgb[..., 1]
    yellow_blue = (rgb[..., 0] + rgb[..., 1]) / 2 - rgb[..., 2]
    return np.stack([light * 0.9, red_green, yellow_blue], axis=-1)


def nearest_colour(rgb: NDArray[np.floating[Any]]) -> str:
    """The name of the palette colour closest to one sRGB value (3,), 0..1."""
    distance = ((opponent(_TABLE) - opponent(np.asarray(rgb, np.float32))) ** 2).sum(-1)
    return COLOURS[int(distance.argmin())]


def shade(name: str, amount: float) -> Rgb:
    """The named colour made darker (amount towards -1) or lighter (towards 1), still itself."""
    base = PALETTE[name]
    if amount < 0:  # white has no other way to vary: keep it white
        return base * np.float32(1 + (0.05 if name == "white" else 0.14) * amount)
    return base + (1 - base) * np.float32(0.10 * amount)


def vary(name: str, rng: np.random.Generator) -> Rgb:
    """A colour that people would call by this name: the spread of photographed things."""
    for _ in range(20):
        gain = rng.uniform(0.72, 1.08)
        tint = rng.normal(0, 0.045, 3)
        rgb = np.clip(PALETTE[name] * gain + tint, 0, 1).astype(np.float32)
        if nearest_colour(rgb) == name:
            return rgb
    return PALETTE[name]
