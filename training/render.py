"""Draws a scene at the native size, anti-aliased by supersampling."""

import math
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from training.palette import PALETTE
from training.scene import NATIVE_PX, Backdrop, Scene, Thing

SUPERSAMPLE = 4
OUTLINE_PX = 2.2
STRIPE_PX = 8
Picture = NDArray[np.uint8]  # (64, 64, 3)


@cache
def outline(shape: str) -> tuple[NDArray[np.floating[Any]], ...]:
    """Unit polygons (n, 2) of a shape, y down; the second one, if any, is a hole."""
    turn = np.linspace(0, 2 * math.pi, 72, endpoint=False)
    circle = np.stack([np.cos(turn), np.sin(turn)], 1)
    if shape == "circle":
        return (circle,)
    if shape == "ring":
        return circle, circle * 0.5
    if shape == "square":
        return (np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * 0.87,)
    if shape == "triangle":
        return (np.array([[0, -1.0], [1.05, 0.85], [-1.05, 0.85]]),)
    if shape == "cross":
        a, b = 0.34, 1.0
        corners = [(-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a)]
        half = np.array(corners)
        return (np.concatenate([half, -half]),)
    if shape == "star":
        angle = np.arange(10) * math.pi / 5 - math.pi / 2
        reach = np.where(np.arange(10) % 2 == 0, 1.15, 0.46)
        return (np.stack([np.cos(angle) * reach, np.sin(angle) * reach + 0.08], 1),)
    if shape == "heart":
        x = 16 * np.sin(turn) ** 3
        y = 13 * np.cos(turn) - 5 * np.cos(2 * turn) - 2 * np.cos(3 * turn) - np.cos(4 * turn)
        return (np.stack([x / 16.0, -(y + 2.5) / 14.5], 1),)
    raise KeyError(shape)


def mask_of(shape: str, x_px: float, y_px: float, radius_px: float, tilt_deg: float = 0.0) -> NDArray[np.floating[Any]]:
    """Coverage (64, 64) of one shape, 0..1; a negative radius draws nothing."""
    side = NATIVE_PX * SUPERSAMPLE
    canvas = Image.new("L", (side, side), 0)
    draw = ImageDraw.Draw(canvas)
    tilt = math.radians(tilt_deg)
    spin = np.array([[math.cos(tilt), math.sin(tilt)], [-math.sin(tilt), math.cos(tilt)]])
    for fill, polygon in zip((255, 0), outline(shape), strict=False):
        points = (polygon @ spin * max(radius_px, 0) + (x_px, y_px)) * SUPERSAMPLE
        draw.polygon([tuple(p) for p in points], fill=fill)
    return np.asarray(canvas.reduce(SUPERSAMPLE), np.float32) / 255


def paint_backdrop(backdrop: Backdrop) -> NDArray[np.floating[Any]]:
    """(64, 64, 3), 0..1."""
    ramp = np.arange(NATIVE_PX, dtype=np.float32)
    y, x = np.meshgrid(ramp, ramp, indexing="ij")
    along = x if backdrop.vertical else y
    if backdrop.kind == "plain":
        share: NDArray[np.floating[Any]] = np.zeros_like(x)
    elif backdrop.kind == "gradient":
        share = (y if backdrop.vertical else x) / (NATIVE_PX - 1)
    elif backdrop.kind == "stripes":
        share = (along // STRIPE_PX) % 2
    else:
        share = (x // STRIPE_PX + y // STRIPE_PX) % 2
    share = share[..., None]
    return backdrop.first_rgb * (1 - share) + backdrop.second_rgb * share


def _coverage(thing: Thing, style: str) -> NDArray[np.floating[Any]]:
    mask = mask_of(thing.shape, thing.x_px, thing.y_px, thing.radius_px, thing.tilt_deg)
    if style == "soft":
        image = Image.fromarray((mask * 255).astype(np.uint8))
        return np.asarray(image.filter(ImageFilter.GaussianBlur(1.8)), np.float32) / 255
    if style == "pixel":
        coarse = mask.reshape(NATIVE_PX // 4, 4, NATIVE_PX // 4, 4).mean((1, 3)) > 0.5
        return coarse.repeat(4, 0).repeat(4, 1).astype(np.float32)
    return mask


def _dilated(mask: NDArray[np.floating[Any]], px: float) -> NDArray[np.floating[Any]]:
    """The mask grown by about `px`, for a contour of even width."""
    big = Image.fromarray((mask * 255).astype(np.uint8)).resize((256, 256), Image.Resampling.BICUBIC)
    grown = big.filter(ImageFilter.GaussianBlur(px * 2)).point(lambda v: 255 if v > 28 else 0)
    return np.asarray(grown.reduce(4), np.float32) / 255


def render_floats(scene: Scene) -> NDArray[np.floating[Any]]:
    """(64, 64, 3), 0..1."""
    canvas = paint_backdrop(scene.backdrop)
    for thing in scene.things:
        mask = _coverage(thing, scene.style)
        if scene.style == "outlined":
            contour = _dilated(mask, OUTLINE_PX)[..., None]
            canvas = canvas * (1 - contour) + PALETTE["black"] * contour
        canvas = canvas * (1 - mask[..., None]) + thing.rgb * mask[..., None]
    return canvas.astype(np.float32)


def render(scene: Scene) -> Picture:
    """(64, 64, 3) sRGB bytes."""
    return (np.clip(render_floats(scene), 0, 1) * 255 + 0.5).astype(np.uint8)
