"""Line plots as SVG, without a library to install."""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.sax.saxutils import escape

from benchmarks.figure import Sweep

WIDTH, HEIGHT = 720, 360
LEFT, RIGHT, TOP, BOTTOM = 70, 170, 40, 50
COLOURS = ("#4c72b0", "#dd8452", "#55a868", "#c44e52", "#8172b3", "#937860", "#da8bc3")
TICKS = 5
_TEXT = 'font-family="sans-serif" font-size="12"'


def draw_sweep(sweep: Sweep) -> str:
    """One plot: points joined by lines, the axis up from zero."""
    points = [point for line in sweep.lines.values() for point in line]
    across = _Axis([x for x, _ in points], LEFT, WIDTH - RIGHT, logarithmic=sweep.logarithmic)
    up = _Axis([0.0, *(y for _, y in points)], HEIGHT - BOTTOM, TOP)
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{LEFT}" y="22" {_TEXT} font-weight="bold">{escape(sweep.title)}</text>',
        *_draw_grid(across, up),
        f'<text x="{middle}" y="{HEIGHT - 10}" {_TEXT} text-anchor="middle">{escape(sweep.across)}</text>',
        f'<text x="12" y="{TOP - 6}" {_TEXT}>{escape(sweep.up)}</text>',
    ]
    for place, (name, line) in enumerate(sweep.lines.items()):
        parts += _draw_line(name, line, across, up, place)
    return "\n".join([*parts, "</svg>"]) + "\n"


class _Axis:
    """Where on the page a value is."""

    def __init__(self, values: Sequence[float], first: float, last: float, *, logarithmic: bool = False) -> None:
        self._scale = math.log10 if logarithmic else float
        self._first, self._last = first, last
        self._low, self._high = self._scale(min(values)), self._scale(max(values))
        self.ticks = sorted(set(values)) if logarithmic else _choose_ticks(self._low, self._high)
        if not logarithmic:
            self._high = max(self._high, self.ticks[-1])

    def place(self, value: float) -> float:
        """Pixels."""
        share = (self._scale(value) - self._low) / ((self._high - self._low) or 1.0)
        return round(self._first + share * (self._last - self._first), 1)


def _choose_ticks(low: float, high: float) -> list[float]:
    """About five round numbers that reach from the lowest value past the highest."""
    rough = ((high - low) or 1.0) / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first = math.floor(low / step)
    return [step * number for number in range(first, math.ceil(high / step) + 1)]


def _draw_grid(across: _Axis, up: _Axis) -> list[str]:
    lines = []
    for tick in up.ticks:
        y = up.place(tick)
        lines.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}" stroke="#ddd"/>')
        lines.append(f'<text x="{LEFT - 6}" y="{y + 4}" {_TEXT} text-anchor="end">{tick:,.4g}</text>')
    for tick in across.ticks:
        x = across.place(tick)
        lines.append(f'<line x1="{x}" x2="{x}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" stroke="#eee"/>')
        label = f"{tick:,.0f}"
        lines.append(f'<text x="{x}" y="{HEIGHT - BOTTOM + 18}" {_TEXT} text-anchor="middle">{label}</text>')
    return lines


def _draw_line(name: str, line: Sequence[tuple[float, float]], across: _Axis, up: _Axis, place: int) -> list[str]:
    colour = COLOURS[place % len(COLOURS)]
    spots = [(across.place(x), up.place(y)) for x, y in line]
    path = " ".join(f"{x},{y}" for x, y in spots)
    dots = [f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>' for x, y in spots]
    left, top = WIDTH - RIGHT + 16, TOP + 18 * place
    return [
        f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>',
        *dots,
        f'<rect x="{left}" y="{top}" width="12" height="12" fill="{colour}"/>',
        f'<text x="{left + 18}" y="{top + 11}" {_TEXT}>{escape(name)}</text>',
    ]
