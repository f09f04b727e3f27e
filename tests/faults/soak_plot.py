"""The soak's memory curves as a picture, drawn with Pillow alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

SIZE = (1200, 560)
LEFT, TOP, RIGHT, BOTTOM = 80, 60, 1170, 500
COLOURS = {"api kept": "#0b61a4", "infer kept": "#b3430b", "api killed": "#9cc4e4", "infer killed": "#eeb999"}
TICKS = 6

Series = Sequence[tuple[float, float]]


def draw_curves(samples: Mapping[str, Series], target: Path) -> None:
    """`samples`: resident memory in MiB over seconds, for each process. A new start begins a new line."""
    longest_s = max(series[-1][0] for series in samples.values())
    top_mib = TICKS * math.ceil(1.1 * max(mib for series in samples.values() for _, mib in series) / TICKS)
    image = Image.new("RGB", SIZE, "white")
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(16)
    _draw_axes(draw, font, longest_s, top_mib)
    for name in sorted(samples, key=lambda one: "kept" in one):
        points = [
            (LEFT + (RIGHT - LEFT) * at_s / longest_s, BOTTOM - (BOTTOM - TOP) * mib / top_mib)
            for at_s, mib in samples[name]
        ]
        if "kept" in name:
            draw.line(points, fill=COLOURS[name], width=3)
        else:
            for x, y in points:
                draw.ellipse((x - 1, y - 1, x + 1, y + 1), fill=COLOURS[name])
    for index, name in enumerate(COLOURS):
        draw.rectangle((LEFT + 250 * index, 22, LEFT + 250 * index + 18, 36), fill=COLOURS[name])
        draw.text((LEFT + 250 * index + 26, 18), name, fill="black", font=font)
    target.parent.mkdir(parents=True, exist_ok=True)
    image.save(target, optimize=True)


def _draw_axes(draw: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont, longest_s: float, top_mib: float) -> None:
    for tick in range(TICKS + 1):
        x = LEFT + (RIGHT - LEFT) * tick / TICKS
        y = BOTTOM - (BOTTOM - TOP) * tick / TICKS
        draw.line((LEFT, y, RIGHT, y), fill="#dddddd")
        draw.text((x - 14, BOTTOM + 10), f"{longest_s / 60 * tick / TICKS:.1f}", fill="black", font=font)
        draw.text((18, y - 9), f"{top_mib * tick / TICKS:.0f}", fill="black", font=font)
    draw.line((LEFT, TOP, LEFT, BOTTOM, RIGHT, BOTTOM), fill="black", width=2)
    draw.text((LEFT + 440, BOTTOM + 34), "minutes", fill="black", font=font)
    draw.text((18, 36), "MiB", fill="black", font=font)
