"""Finds what was painted in a picture: connected regions, their colour, outline and extent."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.render import mask_of
from training.scene import SHAPES

Mask = NDArray[np.bool_]  # (64, 64)
Floats = NDArray[np.floating[Any]]  # (64, 64, 3), 0..1
MIN_AREA_PX = 24
TILTS_DEG = (-8.0, -4.0, 0.0, 4.0, 8.0)


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """One connected thing: its mask, the median colour of its core, its best-fitting shape."""

    mask: Mask
    rgb: NDArray[np.floating[Any]]
    shape: str
    fit: float  # intersection over union with that shape, 0..1
    x_px: float
    y_px: float
    radius_px: float


def eroded(mask: Mask) -> Mask:
    """The mask less its outermost pixels."""
    padded = np.pad(mask, 1)
    inner = padded[1:-1, 1:-1] & padded[:-2, 1:-1] & padded[2:, 1:-1]
    return inner & padded[1:-1, :-2] & padded[1:-1, 2:]


def core(mask: Mask) -> Mask:
    """The innermost pixels: eroded while at least twelve are left, four times at most."""
    for _ in range(4):
        smaller = eroded(mask)
        if smaller.sum() < 12:
            break
        mask = smaller
    return mask


def components(mask: Mask) -> list[Mask]:
    """Connected parts (4 neighbours) of at least MIN_AREA_PX, largest first."""
    left = mask.copy()
    found = []
    while left.any():
        stack = [tuple(np.argwhere(left)[0])]
        left[stack[0]] = False
        part = np.zeros_like(mask)
        while stack:
            y, x = stack.pop()
            part[y, x] = True
            for near in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                inside = 0 <= near[0] < mask.shape[0] and 0 <= near[1] < mask.shape[1]
                if inside and left[near]:
                    left[near] = False
                    stack.append(near)
        if part.sum() >= MIN_AREA_PX:
            found.append(part)
    return sorted(found, key=lambda part: -int(part.sum()))


def filled(mask: Mask) -> Mask:
    """The mask with its holes closed."""
    outside = np.pad(~mask, 1, constant_values=True)
    largest = max(components(outside), key=lambda part: bool(part[0, 0]))
    return ~largest[1:-1, 1:-1]


@cache
def _unit(shape: str, tilt_deg: float) -> tuple[float, float, float, float, float]:
    """Width, height, centre and area of a shape's bounding box, in radii."""
    mask = mask_of(shape, 32, 32, 24, tilt_deg)
    left, top, width, height = _box(mask > 0.5)
    cx, cy = left + width / 2 - 32, top + height / 2 - 32
    return width / 24, height / 24, cx / 24, cy / 24, float(mask.sum()) / 24**2


def _box(mask: Mask) -> tuple[float, float, float, float]:
    """Left, top, width and height in pixels."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    left, top = float(columns[0]), float(rows[0])
    return left, top, float(columns[-1]) + 1 - left, float(rows[-1]) + 1 - top


def overlap(a: Mask, b: Mask) -> float:
    """Intersection over union, 0..1."""
    union = (a | b).sum()
    return float((a & b).sum() / union) if union else 0.0


def fit_shape(mask: Mask) -> tuple[str, float, float, float, float]:
    """(shape, overlap, x, y, radius) of the shape that covers the mask best, in pixels."""
    left, top, width, height = _box(mask)
    best = ("", -1.0, 0.0, 0.0, 0.0)
    for shape in SHAPES:
        for tilt in TILTS_DEG:
            unit_w, unit_h, off_x, off_y, _ = _unit(shape, tilt)
            radius = ((width * height) / (unit_w * unit_h)) ** 0.5
            x, y = left + width / 2 - off_x * radius, top + height / 2 - off_y * radius
            score = overlap(mask, mask_of(shape, x, y, radius, tilt) > 0.5)
            if score > best[1]:
                best = (shape, score, x, y, radius)
    return best


def region_of(mask: Mask, picture: Floats) -> Region:
    """Measure one connected mask."""
    shape, fit, x, y, radius = fit_shape(mask)
    return Region(mask, np.median(picture[core(mask)], axis=0), shape, fit, x, y, radius)
