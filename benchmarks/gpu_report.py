"""Table and plot of `benchmarks.gpu`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

Row = Mapping[str, Any]
COLUMNS = {
    "work": "work",
    "variant": "variant",
    "s_a_picture": "s a picture",
    "speed_up": "times bare",
    "speed_up_saving": "times bare + PNG",
    "encode_s": "encode",
    "denoise_s": "denoise",
    "decode_s": "decode",
    "share": "of matrix rate",
    "peak_gb": "peak GB",
    "distance": "max. difference",
}
DECIMALS = {"s_a_picture": 4, "encode_s": 4, "denoise_s": 4, "decode_s": 4, "peak_gb": 1} | dict.fromkeys(
    ("speed_up", "speed_up_saving"), 2
)
BAR_PX, LEFT_PX, WIDTH_PX = 18, 380, 1100
COLOURS = ("#4c72b0", "#dd8452", "#55a868", "#c44e52", "#8172b3", "#937860", "#da8bc3", "#8c8c8c")


def write_table(rows: Sequence[Row]) -> str:
    """Markdown."""
    lines = ["| " + " | ".join(COLUMNS.values()) + " |", "|" + "---|" * len(COLUMNS)]
    lines += ["| " + " | ".join(_show(key, row.get(key)) for key in COLUMNS) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _show(key: str, value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    if key == "share":
        return f"{value:.0%}"
    return f"{value:.{DECIMALS.get(key, 0)}f}"


def draw_plot(rows: Sequence[Row], path: Path, title: str) -> None:
    """Seconds a picture as bars, those of one work together."""
    works = list(dict.fromkeys(row["work"] for row in rows))
    variants = list(dict.fromkeys(row["variant"] for row in rows))
    height = 60 + BAR_PX * (len(rows) + len(works))
    image = Image.new("RGB", (WIDTH_PX, height), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(13)
    draw.text((10, 10), title, "black", font)
    for index, work in enumerate(works):
        own = [row for row in rows if row["work"] == work]
        longest = max(row["s_a_picture"] for row in own)
        top = 40 + sum(BAR_PX * (1 + sum(row["work"] == before for row in rows)) for before in works[:index])
        for line, row in enumerate(own):
            y = top + BAR_PX * line
            length = (WIDTH_PX - LEFT_PX - 90) * row["s_a_picture"] / longest
            colour = COLOURS[variants.index(row["variant"]) % len(COLOURS)]
            draw.rectangle((LEFT_PX, y + 2, LEFT_PX + length, y + BAR_PX - 3), colour)
            draw.text((LEFT_PX + length + 6, y), f"{row['s_a_picture']:.3f} s", "black", font)
            draw.text((10, y), f"{work}: {row['variant']}", "black", font)
    image.save(path)
