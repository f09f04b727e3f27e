"""Sizes and times as people read them."""

from __future__ import annotations

import math
from collections.abc import Sequence

BARS = "▁▂▃▄▅▆▇█"


def show_bytes(count: float) -> str:
    """As people read sizes: 3.2 GB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def show_span(seconds: float) -> str:
    """As people read times: 45 s, 12 min, 3 h 20 min, 5 days."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {rest} min" if rest else f"{hours} h"
    return f"{hours // 24} days"


def show_sparkline(values: Sequence[float]) -> str:
    """A bar for each value, the tallest as high as the line; a space for nothing at all."""
    most = max(values, default=0)
    return "".join(BARS[math.ceil(value / most * len(BARS)) - 1] if value > 0 else " " for value in values)


def show_seconds(seconds: float) -> str:
    """A duration that is often short: 4 ms, 0.42 s, 12.3 s, 3 min."""
    if seconds < 0.1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.2f} s"
    return f"{seconds:.1f} s" if seconds < 100 else show_span(seconds)
