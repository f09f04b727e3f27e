"""The record of what the fault suite tried and what broke: one line for each case.

`python -m tests.faults.table` prints it. The file is $FAULTS_REPORT, build/faults.jsonl where that is not
set; lines are only ever added, the latest of a case counts.
"""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.conftest import ROOT
from tests.faults.harness import Damage

BROKE = ("jobs_lost", "published_twice", "dangling", "slots_leaked", "other")


def report_path() -> Path:
    return Path(os.environ.get("FAULTS_REPORT", ROOT / "build" / "faults.jsonl"))


def record(
    case: str,
    *,
    runs: int = 1,
    points: int = 0,
    jobs_lost: int = 0,
    published_twice: int = 0,
    dangling: int = 0,
    slots_leaked: int = 0,
    other: int = 0,
    recovery_s: Sequence[float] = (),
    note: str = "",
) -> None:
    """Add a row. `points`: places where something was broken; `recovery_s`: from each to the last job's end."""
    row = {**locals(), "recovery_s": [round(seconds, 3) for seconds in recovery_s]}
    path = report_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def count_damage(damages: Sequence[Damage]) -> dict[str, int]:
    """What the checks found, by the table's columns. A bad picture is a row that names no good file."""

    def total(*names: str) -> int:
        return sum(len(getattr(damage, name)) for damage in damages for name in names)

    return {
        "jobs_lost": total("jobs_lost", "jobs_unended"),
        "published_twice": total("published_twice"),
        "dangling": total("pictures_bad", "rows_dangling", "files_dangling"),
        "slots_leaked": total("slots_leaked"),
        "other": total("database"),
    }


def percentile(seconds: Sequence[float], share: float) -> float:
    """The value that `share` of the seconds do not exceed, interpolated."""
    if len(seconds) == 1:
        return seconds[0]
    return statistics.quantiles(seconds, n=100, method="inclusive")[round(share * 100) - 1]


def read_report(path: Path) -> list[dict[str, Any]]:
    """The latest row of every case, in the order of their first rows."""
    rows: dict[str, dict[str, Any]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        rows[row["case"]] = row
    return list(rows.values())


def render_report(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(title="What was tried and what broke", caption="recovery: from the fault to the last job's end")
    table.add_column("case", overflow="fold")
    for heading in ("runs", "points", *(name.replace("_", " ") for name in BROKE), "p50 s", "p99 s"):
        table.add_column(heading, justify="right")
    table.add_column("note", overflow="fold")
    for row in rows:
        recovery = row["recovery_s"]
        quantiles = [f"{percentile(recovery, share):.2f}" if recovery else "" for share in (0.5, 0.99)]
        counts = [str(row[name]) for name in ("runs", "points", *BROKE)]
        table.add_row(row["case"], *counts, *quantiles, row["note"])
    return table


if __name__ == "__main__":
    Console(width=None if os.isatty(1) else 160).print(render_report(read_report(report_path())))
