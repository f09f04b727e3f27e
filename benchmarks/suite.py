"""The subjects of the suite in their order, and the run of one of them."""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from benchmarks.figure import Measure, Plan
from benchmarks.machine import describe_machine, describe_moment
from benchmarks.plot import draw_sweep

SUBJECTS: Mapping[str, str] = {
    "status_read": "a status through every middleware, and in a store of a million jobs",
    "enqueue_store": "jobs put on disk, 32 callers and one",
    "enqueue_http": "POST /generate from 32 clients",
    "wakeup": "from a job's commit to its claim, and what idle processes cost",
    "long_poll": "from a completion to its answer, 800 waiting",
    "overhead": "what the service adds to a picture, alone and back to back",
    "gap": "the daemon between two jobs",
    "upload": "an upload of 10 MB, and what it does to the event loop",
    "files": "pictures served",
    "sizes": "the store at a thousand to a million jobs",
    "two_writers": "two processes that write at saturation",
    "memory": "memory over a long time, and start times",
}


def find_measure(name: str) -> Measure:
    """What measures a subject. Only what is asked for is imported: some of it takes seconds."""
    measure: Measure = importlib.import_module(f"benchmarks.figures.{name}").measure
    return measure


def run_subject(name: str, plan: Plan) -> dict[str, Any]:
    """Measure a subject and keep what it brought: NAME.json, and a plot for each sweep."""
    moment, began = describe_moment(), time.perf_counter()
    result = find_measure(name)(plan)
    report: dict[str, Any] = {
        "name": name,
        **moment,
        "took_s": time.perf_counter() - began,
        "rounds": plan.rounds,
        "scale": plan.scale,
        "machine": describe_machine(plan.folder),
        "figures": [figure.as_json() for figure in result.figures],
        "sweeps": [asdict(sweep) for sweep in result.sweeps],
    }
    (plan.folder / f"{name}.json").write_text(json.dumps(report, indent=2, ensure_ascii=False), encoding="utf-8")
    for sweep in result.sweeps:
        (plan.folder / f"{sweep.name}.svg").write_text(draw_sweep(sweep), encoding="utf-8")
    return report
