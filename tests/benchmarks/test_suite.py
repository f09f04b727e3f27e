"""The suite as a whole: its subjects, its results, its page."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.figure import Figure, Judged, Plan, Sweep
from benchmarks.plot import HEIGHT, WIDTH, draw_sweep
from benchmarks.report import BEGIN, END, PAGE, list_results, write_page, write_table
from benchmarks.suite import SUBJECTS, run_subject
from tests.conftest import ROOT

SWEEP = Sweep("sizes", "Sizes & more", "jobs", "ms", {"a": [(1, 2), (1000, 3)], "b": [(10, 1)]}, logarithmic=True)


def make_result(folder: Path, name: str) -> None:
    figure = Figure(f"{name}.x", f"{name} ÷ limit", "ms", [30, 31], [10, 10], Judged.RATIO, 2.5, beside={"p99, ms": 4})
    sweep = {"name": "sizes", "title": "Sizes", "across": "jobs", "up": "ms", "lines": {"a": [[1, 2], [3, 4]]}}
    result = {
        "name": name,
        "when": "2030-01-01 00:00 UTC",
        "load average": "0.1",
        "took_s": 3.0,
        "machine": {"processor": "two abaci"},
        "figures": [figure.as_json()],
        "sweeps": [sweep],
    }
    (folder / f"{name}.json").write_text(json.dumps(result))


@pytest.mark.parametrize("name", SUBJECTS)
def test_every_subject_has_a_module_that_measures(name: str) -> None:
    assert callable(importlib.import_module(f"benchmarks.figures.{name}").measure)


def test_every_module_of_figures_is_a_subject() -> None:
    modules = {path.stem for path in (ROOT / "benchmarks" / "figures").glob("*.py")} - {"__init__"}
    assert modules == set(SUBJECTS)


def test_a_subject_leaves_its_rounds_and_its_plot(tmp_path: Path) -> None:
    report = run_subject("enqueue_store", Plan(tmp_path, rounds=1, scale=0.01))
    kept = json.loads((tmp_path / "enqueue_store.json").read_text())
    assert kept == json.loads(json.dumps(report))
    grouped, lone = kept["figures"]
    assert grouped["bar"] == 4.0
    assert len(grouped["samples"]) == len(lone["limits"]) == 1
    assert grouped["samples"][0] == grouped["values"][0] / grouped["limits"][0]
    assert kept["machine"]["SQLite"]
    assert (tmp_path / "enqueue_callers.svg").exists()
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".svg"}  # the stores are gone


def test_only_the_part_between_the_marks_is_written_anew(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text(f"By hand.\n\n{BEGIN}\nold\n{END}\n\nTried in vain.\n")
    for name in ("gap", "status_read"):
        make_result(tmp_path, name)
    results = list_results(tmp_path, list(SUBJECTS))
    assert [result["name"] for result in results] == ["status_read", "gap"]
    write_page(page, results)
    once = page.read_text()
    write_page(page, results)
    assert page.read_text() == once
    assert once.startswith(f"By hand.\n\n{BEGIN}\n")
    assert once.endswith(f"{END}\n\nTried in vain.\n")
    assert "old" not in once
    assert "| gap ÷ limit | 3.05 | 3 to 3.1 | ≤ 2.5 | **missed** | 30.5 / 10 ms | p99, ms: 4 |" in once
    assert "two abaci" in once
    assert (tmp_path / "plots" / "sizes.svg").exists()


def test_the_page_has_the_marks() -> None:
    assert PAGE.read_text(encoding="utf-8").count(BEGIN) == 1
    assert PAGE.read_text(encoding="utf-8").count(END) == 1


def test_a_line_says_whether_its_bar_is_met() -> None:
    figures = [
        Figure("a", "a", "ms", [1.5], judged=Judged.VALUE, bar=2.0),
        Figure("b", "b", "/s", [1234], [2000], bar=0.9, at_least=True),
        Figure("c", "c", "MB", [99.5], judged=Judged.VALUE),
    ]
    lines = write_table([figure.as_json() for figure in figures]).splitlines()[2:]
    assert lines == [
        "| a | 1.5 ms | 1.5 to 1.5 | ≤ 2 | met |  |  |",
        "| b | 0.617 | 0.617 to 0.617 | ≥ 0.9 | **missed** | 1,234 / 2,000 /s |  |",
        "| c | 99.5 MB | 99.5 to 99.5 |  |  |  |  |",
    ]


@pytest.mark.parametrize("sweep", [SWEEP, Sweep("flat", "Flat", "jobs", "MB", {"a": [(0, 61.0), (100, 61.0)]})])
def test_a_plot_is_whole_and_within_its_picture(sweep: Sweep) -> None:
    tree = ElementTree.fromstring(draw_sweep(sweep))
    lines = [element for element in tree.iter() if element.tag.endswith("polyline")]
    assert len(lines) == len(sweep.lines)
    spots = [tuple(map(float, spot.split(","))) for line in lines for spot in line.attrib["points"].split()]
    assert len(spots) == sum(map(len, sweep.lines.values()))
    words = [(element.attrib["x"], element.attrib["y"]) for element in tree.iter() if element.tag.endswith("text")]
    assert all(0 < float(x) < WIDTH and 0 < float(y) < HEIGHT for x, y in [*spots, *words])


def test_an_unknown_name_is_told_the_known_ones() -> None:
    command = [sys.executable, "-m", "benchmarks", "nonsense"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "status_read" in done.stderr
