"""Reads what is behind the things of a picture, from its edge."""

import numpy as np
from numpy.typing import NDArray

from training.palette import nearest_colour
from training.regions import Floats
from training.render import paint_backdrop
from training.scene import Backdrop


def _frame(floats: Floats) -> NDArray[np.bool_]:
    edge = np.ones(floats.shape[:2], bool)
    edge[2:-2, 2:-2] = False
    return edge


def read_backdrop(floats: Floats, truth: Backdrop) -> tuple[bool, Floats]:
    """(is it the one asked for, what the picture would be without things)."""
    edge = _frame(floats)
    if truth.kind == "plain":
        rgb = np.median(floats[edge], axis=0)
        return nearest_colour(rgb) == truth.first, np.broadcast_to(rgb, floats.shape)
    if truth.kind == "gradient":
        top, bottom = (np.median(floats[rows].reshape(-1, 3), axis=0) for rows in (slice(2), slice(-2, None)))
        share = np.linspace(0, 1, len(floats), dtype=np.float32)[:, None, None]
        names = (nearest_colour(top), nearest_colour(bottom))
        return names == (truth.first, truth.second), top * (1 - share) + bottom * share + 0 * floats
    best = (1.0, floats)
    for vertical in (True, False):
        ideal = paint_backdrop(
            Backdrop(truth.kind, truth.first, truth.first_rgb, truth.second, truth.second_rgb, vertical)
        )
        off = float((np.abs(ideal - floats).max(-1)[edge] > 0.3).mean())
        best = min(best, (off, ideal), key=lambda pair: pair[0])
    return best[0] < 0.15, best[1]
