"""The panels of a dashboard as a picture, drawn with Pillow alone: each at its place, with what its queries brought."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw, ImageFont

COLUMN_PX, ROW_PX, GAP_PX = 60, 24, 4
COLOURS = ("#3274d9", "#e0752d", "#56a64b", "#c4162a", "#8f3bb8", "#e0b400", "#1b8a8f", "#b877d9", "#7c8791", "#a2542f")
FILLS = {"green": "#3d8b40", "orange": "#d9822b", "red": "#c4162a"}
BACK, CARD, INK, FAINT, GRID = "#f4f5f5", "#ffffff", "#24292e", "#6a7380", "#e3e5e8"

Points = Sequence[tuple[float, float]]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class Curve:
    """One series of a panel: its legend, and its values over seconds since 1970."""

    legend: str
    points: Points


def draw_panels(panels: Sequence[Mapping[str, Any]], curves: Mapping[int, Sequence[Curve]]) -> Image.Image:
    """The whole dashboard. `curves` are those of each panel, by its id."""
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    image = Image.new("RGB", (24 * COLUMN_PX + GAP_PX, rows * ROW_PX + GAP_PX), BACK)
    for panel in panels:
        at = panel["gridPos"]
        left, top = at["x"] * COLUMN_PX + GAP_PX, at["y"] * ROW_PX + GAP_PX
        box = Box(image, left, top, left + at["w"] * COLUMN_PX - GAP_PX, top + at["h"] * ROW_PX - GAP_PX)
        if panel["type"] == "row":
            box.write(2, 1, panel["title"], 15, INK)
        elif panel["type"] == "stat":
            _draw_stat(box, panel, curves[panel["id"]])
        else:
            _draw_curves(box, panel, curves[panel["id"]])
    return image


class Box:
    """A part of the picture; places are pixels from its upper left corner."""

    def __init__(self, image: Image.Image, left: int, top: int, right: int, bottom: int) -> None:
        self._draw = ImageDraw.Draw(image)
        self._left, self._top = left, top
        self.width, self.height = right - left, bottom - top

    def fill(self, colour: str) -> None:
        """The whole of it."""
        corners = (self._left, self._top, self._left + self.width, self._top + self.height)
        self._draw.rounded_rectangle(corners, 3, fill=colour)

    def write(self, x: float, y: float, text: str, size: int, colour: str, anchor: str = "la") -> float:
        """A line of text; its width."""
        font = ImageFont.load_default(size)
        self._draw.text((self._left + x, self._top + y), text, fill=colour, font=font, anchor=anchor)
        return float(self._draw.textlength(text, font=font))

    def line(self, points: Points, colour: str, width: int = 1) -> None:
        """Through the points."""
        self._draw.line([(self._left + x, self._top + y) for x, y in points], fill=colour, width=width)

    def area(self, points: Points, colour: str) -> None:
        """Within the points."""
        self._draw.polygon([(self._left + x, self._top + y) for x, y in points], fill=colour)


def _draw_stat(box: Box, panel: Mapping[str, Any], curves: Sequence[Curve]) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    value = curves[0].points[-1][1] if curves else None
    steps = [step for step in defaults["thresholds"]["steps"] if value is None or (step["value"] or -math.inf) <= value]
    box.fill(FAINT if value is None else FILLS[steps[-1]["color"]])
    box.write(box.width / 2, 8, panel["title"], 13, "white", "ma")
    names = {key: option["text"] for mapping in defaults["mappings"] for key, option in mapping["options"].items()}
    told = defaults["noValue"] if value is None else names.get(f"{value:g}") or tell(value, defaults["unit"])
    box.write(box.width / 2, box.height / 2 + 10, told, 26, "white", "mm")


def _draw_curves(box: Box, panel: Mapping[str, Any], curves: Sequence[Curve]) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    stacked = defaults["custom"]["stacking"]["mode"] == "normal"
    box.fill(CARD)
    box.write(8, 5, panel["title"], 13, INK)
    if not curves:
        box.write(box.width / 2, box.height / 2, "no data", 13, FAINT, "mm")
        return
    levels = _stack(curves) if stacked else [curve.points for curve in curves]
    top = max((value for points in levels for _, value in points), default=0)
    top = defaults.get("max") or _round_up(top, 1024.0 if defaults["unit"] == "bytes" else 1.0)
    plot = _Plot(box, [at for points in levels for at, _ in points], top)
    plot.draw_grid(defaults["unit"])
    for index in reversed(range(len(curves))):
        plot.draw(levels[index], COLOURS[index % len(COLOURS)], filled=stacked)
    _draw_legend(box, [curve.legend for curve in curves])


class _Plot:
    """The part of a panel in which its curves lie."""

    def __init__(self, box: Box, times: Sequence[float], top: float) -> None:
        self._box = box
        self._left, self._right, self._upper, self._lower = 58, box.width - 10, 30, box.height - 36
        self._begin, self._length_s = min(times), max(max(times) - min(times), 1.0)
        self._top = top

    def draw_grid(self, unit: str) -> None:
        """Lines at four heights, and what they stand for."""
        for part in (0.0, 0.25, 0.5, 0.75, 1.0):
            y = self._height(part * self._top)
            self._box.line([(self._left, y), (self._right, y)], GRID)
            self._box.write(self._left - 6, y, tell(part * self._top, unit), 10, FAINT, "rm")

    def draw(self, points: Points, colour: str, *, filled: bool) -> None:
        """One curve."""
        places = [
            (self._left + (self._right - self._left) * (at - self._begin) / self._length_s, self._height(value))
            for at, value in points
        ]
        if filled and len(places) > 1:
            floor = self._height(0)
            self._box.area([(places[0][0], floor), *places, (places[-1][0], floor)], _lighten(colour))
        self._box.line(places, colour, 2)

    def _height(self, value: float) -> float:
        return self._lower - (self._lower - self._upper) * min(value / self._top, 1.0)


def _stack(curves: Sequence[Curve]) -> list[Points]:
    """Each curve on top of those before it."""
    total: dict[float, float] = {}
    levels = []
    for curve in curves:
        for at, value in curve.points:
            total[at] = total.get(at, 0.0) + value
        levels.append([(at, total[at]) for at, _ in curve.points])
    return levels


def _draw_legend(box: Box, legends: Sequence[str]) -> None:
    x, y = 10.0, box.height - 30
    for index, legend in enumerate(legends):
        width = ImageDraw.Draw(Image.new("1", (1, 1))).textlength(legend, font=ImageFont.load_default(11)) + 26
        if x > 10 and x + width > box.width:
            x, y = 10.0, y + 14
        if y > box.height - 12:
            box.write(box.width - 6, y - 14, "…", 11, FAINT, "ra")
            return
        box.line([(x, y + 7), (x + 12, y + 7)], COLOURS[index % len(COLOURS)], 3)
        box.write(x + 16, y, legend, 11, FAINT)
        x += width


def tell(value: float, unit: str) -> str:
    """A number for people."""
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    if unit == "s":
        return _tell_seconds(value)
    step, letters, end = (
        (1024.0, ("", "Ki", "Mi", "Gi", "Ti"), "B") if unit == "bytes" else (1000.0, ("", "k", "M"), "")
    )
    power = min(int(math.log(abs(value), step)), len(letters) - 1) if abs(value) >= 1 else 0
    return f"{value / step**power:.3g} {letters[power]}{end}".strip() + ("/s" if unit == "reqps" else "")


def _tell_seconds(value: float) -> str:
    if 0 < value < 1:
        return f"{value * 1000:.3g} ms"
    if value < 120:
        return f"{value:.3g} s"
    return f"{value / 60:.3g} min" if value < 7200 else f"{value / 3600:.3g} h"


def fill_legend(pattern: str, labels: Mapping[str, str]) -> str:
    """A legend with the labels' values in it."""
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), pattern).strip() or "value"


def _round_up(value: float, base: float) -> float:
    """The next number that is easy to read, in powers of `base` where that is above 1; 1 for nothing."""
    if value <= 0:
        return 1.0
    unit = base ** math.floor(math.log(value, base)) if base > 1 else 1.0
    power = unit * 10.0 ** math.floor(math.log10(value / unit))
    return next(step * power for step in (1, 2, 4, 5, 8, 10) if step * power >= value * 0.9999)


def _lighten(colour: str) -> str:
    parts = [int(colour[start : start + 2], 16) for start in (1, 3, 5)]
    return "#" + "".join(f"{255 - (255 - part) // 3:02x}" for part in parts)
