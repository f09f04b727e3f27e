"""Writes an evaluation as Markdown tables."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from training.palette import COLOURS
from training.scene import SHAPES

if TYPE_CHECKING:
    from training.evaluate import Evaluation

ATTRIBUTES = ("backdrop", "count", "shape", "colour", "position", "style")


def _percent(share: float) -> str:
    return f"{100 * share:.0f}"


def _confusion(names: tuple[str, ...], seen: Counter[tuple[str, str]]) -> list[str]:
    columns = [*names, "none"]
    lines = [f"| asked \\ seen | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name in names:
        cells = [str(seen[name, other]) if seen[name, other] else "·" for other in columns]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def as_markdown(result: Evaluation) -> str:
    """Tables of rates in percent, controls and confusions."""
    lines = [
        f"{result.count} pictures a kind, {result.steps} steps, held-out prompts; percent right.",
        "",
        f"| kind | **all** | {' | '.join(ATTRIBUTES)} | wrong request | wrong references |",
        "|---" * (len(ATTRIBUTES) + 4) + "|",
    ]
    for kind, score in result.scores.items():
        cells = [_percent(score.rate(name)) for name in ATTRIBUTES]
        swapped = _percent(float(np.mean(score.wrong_references))) if score.wrong_references else ""
        idle = _percent(float(np.mean(score.wrong_request)))
        right = _percent(score.rate("right"))
        lines.append(f"| {kind} | **{right}** | {' | '.join(cells)} | {idle} | {swapped} |")
    lines += [
        "",
        f"Mean pairwise RMS distance of pictures under different seeds: {result.spread:.3f}.",
        "",
        "Shapes asked for (rows) and seen (columns); `none`: not exactly one thing was seen.",
        "",
        *_confusion(SHAPES, result.shapes),
        "",
        "Colours:",
        "",
        *_confusion(COLOURS, result.colours),
        "",
    ]
    return "\n".join(lines)
