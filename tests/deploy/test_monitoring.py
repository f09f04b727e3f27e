"""Metrics, their page, the dashboard and the alerts tell of the same things, and Prometheus understands them all."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import ROOT, make_settings
from tests.deploy.watched import ALERTS, CONFIG, DASHBOARD, LISTEN, Watched, ask, fetch, run_prometheus
from tests.e2e.conftest import Stack, wait_until
from umrgen_core.backup import back_up

PAGE = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
BOARD = json.loads(DASHBOARD.read_text(encoding="utf-8"))
RULES = [rule for group in yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]]
CASES = [ROOT / "tests" / "deploy" / name for name in ("alerts.test.yml", "alerts-of-days.test.yml")]
OF_THE_SCRAPE = {"job", "instance", "box", "le"}
"""Labels that every series has by being scraped, and that of a histogram's buckets."""
IN_VAIN = re.compile(r"gpu_|_refused_|increase\(|histogram_quantile|/ sum")
"""Queries that may have no answer: no device here, nothing refused, too little time."""

needs_prometheus = pytest.mark.skipif(
    not (shutil.which("promtool") and shutil.which("prometheus")),
    reason="promtool and prometheus are not installed: apt install prometheus",
)


@dataclass(frozen=True)
class Documented:
    """A row of the page."""

    kind: str
    labels: frozenset[str]


def read_page() -> dict[str, Documented]:
    rows = re.findall(r"^\| `(\w+)` \| (counter|gauge|histogram) \|([^|]*)\|", PAGE, re.MULTILINE)
    assert len(rows) == len({name for name, _, _ in rows})
    return {name: Documented(kind, frozenset(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}


def list_targets() -> list[tuple[str, str, str]]:
    """Panel, query and legend of everything that the dashboard asks."""
    asked = [
        (panel["title"], target["expr"], target["legendFormat"])
        for panel in BOARD["panels"]
        for target in panel.get("targets", ())
    ]
    return asked + [(note["name"], note["expr"], note["titleFormat"]) for note in BOARD["annotations"]["list"]]


def list_queries() -> list[str]:
    return [query for _, query, _ in list_targets()] + [rule["expr"] for rule in RULES]


def list_metrics(query: str) -> set[str]:
    """Which metrics a query names, histograms without the endings of their series."""
    named = set(re.findall(r"\b(?:umrgen|process)_\w+", re.sub(r"(?:by|without|on) \([^)]*\)|\{[^}]*\}", "", query)))
    documented = read_page()
    return {name if name in documented else re.sub(r"_(bucket|sum|count)$", "", name) for name in named}


def list_labels(query: str) -> set[str]:
    """Which labels a query names."""
    listed = " ".join(re.findall(r"(?:by|without|on) \(([^)]*)\)", query))
    matched = " ".join(re.findall(r"\{([^}]*)\}", query))
    return set(re.findall(r"\w+", listed)) | set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matched))


def run(*command: object, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command], cwd=ROOT, capture_output=True, text=True, check=False, **options
    )


@pytest.mark.parametrize("query", list_queries())
def test_every_query_asks_for_what_the_page_tells_of(query: str) -> None:
    documented = read_page()
    named = list_metrics(query)
    assert named <= documented.keys()
    labels = OF_THE_SCRAPE.union(*(documented[name].labels for name in named))
    assert list_labels(query) <= labels


@pytest.mark.parametrize(("title", "query", "legend"), list_targets())
def test_every_legend_names_labels_that_the_query_leaves(title: str, query: str, legend: str) -> None:
    wanted = set(re.findall(r"\{\{(\w+)\}\}", legend))
    grouped = re.findall(r"by \(([^)]*)\)", query)
    left = set(re.findall(r"\w+", grouped[0])) if grouped else set()
    if not grouped and not re.search(r"\b(sum|max|min)\(", query):
        left = OF_THE_SCRAPE.union(*(read_page()[name].labels for name in list_metrics(query)))
    assert wanted <= left


def test_the_panels_of_the_dashboard_lie_side_by_side() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])


def test_every_alert_has_its_paragraph_its_case_and_its_link() -> None:
    cases = "".join(path.read_text(encoding="utf-8") for path in CASES)
    assert [rule["alert"] for rule in RULES] == re.findall(r"^### (Umrgen\w+)$", PAGE, re.MULTILINE)
    for rule in RULES:
        name = rule["alert"]
        assert rule["labels"]["severity"] in ("critical", "warning")
        paragraph = PAGE.split(f"### {name}\n\n", 1)[1]
        assert paragraph.lower().startswith(rule["labels"]["severity"])
        assert {*rule["annotations"]} == {"summary", "description", "runbook"}
        assert rule["annotations"]["runbook"] == f"docs/metrics.md#{name.lower()}"
        asked = re.findall(rf"alertname: {name}\n(\s+exp_alerts)?", cases)
        assert any(asked), f"{name} is never seen to fire"
        assert not all(asked), f"{name} is never seen to keep quiet"


@needs_prometheus
def test_promtool_finds_each_alert_to_fire_when_it_should_and_not_else() -> None:
    done = run("promtool", "test", "rules", *CASES)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_prometheus
def test_promtool_accepts_the_example_configuration_and_its_rules() -> None:
    done = run("promtool", "check", "config", CONFIG)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("watched")
    settings = make_settings(folder / "data")
    back_up(settings.storage, folder / "backup")
    with ExitStack() as exits:
        watched = Watched(Stack(folder / "data", exits, **LISTEN))
        watched.work(seed=1)
        yield watched


@pytest.fixture(scope="module")
def prometheus(watched: Watched, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real Prometheus that has seen a job come and go."""
    with run_prometheus(watched.ports, tmp_path_factory.mktemp("prometheus"), "250ms") as url:
        watched.work(seed=2)
        counted = ("umrgen_job_stage_seconds_count", "umrgen_uploads_sanitised_total", "umrgen_http_requests_total")
        risen = [f"sum(rate({name}[30s])) > 0" for name in counted]  # each process is scraped in its own time
        for query in (*risen, 'umrgen_jobs{state="completed"}'):
            wait_until(lambda query=query: bool(ask(url, query)), 20)
        yield url


@needs_prometheus
def test_promtool_accepts_what_both_processes_show(watched: Watched) -> None:
    for job in watched.ports:
        done = run("promtool", "check", "metrics", input=watched.read(job))
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_both_processes_show_is_what_the_page_tells_of(watched: Watched) -> None:
    wait_until(lambda: 'umrgen_jobs{state="completed"}' in watched.read("umrgen-api"), 20)
    shown: dict[str, Documented] = {}
    for job in watched.ports:
        for family in text_string_to_metric_families(watched.read(job)):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            labels = frozenset(label for sample in family.samples for label in sample.labels) - {"le"}
            before = shown.get(name, Documented(family.type, frozenset()))
            shown[name] = Documented(family.type, before.labels | labels)
    documented = read_page()
    assert shown.keys() == documented.keys()
    for name, seen in shown.items():
        assert seen.kind == documented[name].kind, name
        # A machine without a device has the families and no series.
        assert seen.labels == documented[name].labels or name.startswith("umrgen_gpu_"), name


@needs_prometheus
def test_prometheus_answers_every_query_of_dashboard_and_alerts(prometheus: str) -> None:
    answers = {query: ask(prometheus, query) for query in list_queries()}
    empty = {query for _, query, _ in list_targets() if not answers[query] and not IN_VAIN.search(query)}
    assert empty <= {note["expr"] for note in BOARD["annotations"]["list"]}
    health = json.loads(fetch(f"{prometheus}/api/v1/rules"))["data"]["groups"]
    assert {rule["health"] for group in health for rule in group["rules"]} <= {"ok", "unknown"}
