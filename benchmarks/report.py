"""What was measured as a table, and the part of docs/performance.md that is made from it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.figure import Judged, Sweep
from benchmarks.plot import draw_sweep
from benchmarks.service import ROOT

FOLDER = ROOT / "build" / "bench"
PAGE = ROOT / "docs" / "performance.md"
PLOTS = "plots"
BEGIN, END = "<!-- make bench: begin -->", "<!-- make bench: end -->"
HEADINGS = ("figure", "median", "lowest to highest", "bar", "", "value / limit", "beside")

Json = Mapping[str, Any]


def list_results(folder: Path, order: Sequence[str]) -> list[Json]:
    """What each subject brought when it was last measured, in the order of the suite."""
    files = [folder / f"{name}.json" for name in order]
    return [json.loads(file.read_text(encoding="utf-8")) for file in files if file.exists()]


def write_table(figures: Sequence[Json]) -> str:
    """Markdown, a line for each figure."""
    lines = ["| " + " | ".join(HEADINGS) + " |", "|" + "---|" * len(HEADINGS)]
    return "\n".join(lines + ["| " + " | ".join(_write_cells(figure)) + " |" for figure in figures])


def _write_cells(figure: Json) -> list[str]:
    unit = "" if figure["judged"] == Judged.RATIO else f" {figure['unit']}"
    bar = figure["bar"]
    verdict = {True: "met", False: "**missed**", None: ""}[figure["ok"]]
    return [
        figure["title"],
        f"{write_number(figure['median'])}{unit}",
        f"{write_number(figure['lowest'])} to {write_number(figure['highest'])}",
        "" if bar is None else f"{'≥' if figure['at_least'] else '≤'} {write_number(bar)}",
        verdict,
        _write_sides(figure),
        "; ".join(f"{name}: {write_number(value)}" for name, value in figure["beside"].items()),
    ]


def _write_sides(figure: Json) -> str:
    """The medians of what was measured and of its limit."""
    sides = [median(values) for values in (figure["values"], figure["limits"]) if values]
    if len(sides) == 1:
        return ""
    return " / ".join(map(write_number, sides)) + f" {figure['unit']}"


def write_number(value: float) -> str:
    """Three digits that count, and all before the point."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def write_part(results: Sequence[Json]) -> str:
    """The generated part of the page."""
    machine = results[-1]["machine"]
    moments = [f"{result['name']} {result['took_s']:.0f} s (load {result['load average']})" for result in results]
    figures = [figure for result in results for figure in result["figures"]]
    sweeps = [sweep for result in results for sweep in result["sweeps"]]
    plots = [f"![{sweep['title']}]({PLOTS}/{sweep['name']}.svg)" for sweep in sweeps]
    return "\n\n".join(
        [
            BEGIN,
            "| machine | |\n|---|---|\n" + "\n".join(f"| {name} | {value} |" for name, value in machine.items()),
            write_table(figures),
            f"Last measured {results[-1]['when']}; took, and load average before it: {', '.join(moments)}.",
            *plots,
            END,
        ]
    )


def write_page(page: Path, results: Sequence[Json]) -> None:
    """Put the part into the page between its marks, and the plots beside the page. The rest stays."""
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END)
    page.write_text(before + write_part(results) + after, encoding="utf-8")
    folder = page.parent / PLOTS
    folder.mkdir(exist_ok=True)
    for sweep in (sweep for result in results for sweep in result["sweeps"]):
        (folder / f"{sweep['name']}.svg").write_text(draw_sweep(Sweep(**sweep)), encoding="utf-8")
