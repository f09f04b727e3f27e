from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

import pytest
import structlog

from tests.conftest import ROOT
from tests.trace_collector import attributes_of, open_collector
from umrgen_core import otlp, tracing
from umrgen_core.errors import ConfigError
from umrgen_core.sections import TraceSettings
from umrgen_core.trace_context import parse_traceparent
from umrgen_core.tracing import SpanKind, Tracer, load_tracer

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def _sent_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")


def load(endpoint: str) -> Tracer:
    tracer = load_tracer(TraceSettings(endpoint=endpoint), "umrgen-test")
    assert tracer is not None
    return tracer


def test_while_tracing_is_off_neither_process_imports_opentelemetry() -> None:
    code = (
        "import sys, pathlib, umrgen_infer.__main__, umrgen_infer.daemon, umrgen_api.__main__\n"
        "from umrgen_api.app import build_app\n"
        "from umrgen_core.clock import SystemClock\n"
        "from umrgen_core.config import load_settings\n"
        "from umrgen_core.tracing import load_tracer\n"
        "settings = load_settings(pathlib.Path('config.toml'))\n"
        "build_app(settings, SystemClock())\n"
        "assert load_tracer(settings.trace, 'umrgen-infer') is None\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_without_the_packages_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "IMPLEMENTATION", "opentelemetry_is_not_here")
    with pytest.raises(ConfigError, match=r"\[otel\]"):
        load(NOWHERE)


def test_a_span_has_the_times_the_parent_and_the_attributes_that_it_was_given() -> None:
    with open_collector() as collector:
        tracer = load(collector.url + "/")
        outer = tracer.begin("outer", SpanKind.SERVER, 1_000, PARENT, {"a": "x"})
        inner = tracer.begin("inner", SpanKind.INTERNAL, 1_100, outer.traceparent)
        inner.end(1_200, {"b": 2})
        outer.end(1_300, {}, failed=True)
        tracer.close()
    by_name = {span.name: span for span in collector.spans("umrgen-test")}
    named = parse_traceparent(PARENT)
    assert named is not None
    told, below = by_name["outer"], by_name["inner"]
    assert (told.start_time_unix_nano, told.end_time_unix_nano, told.kind, told.status.code) == (1_000, 1_300, 2, 2)
    assert (told.trace_id, told.parent_span_id) == (
        named.trace_id.to_bytes(16, "big"),
        named.span_id.to_bytes(8, "big"),
    )
    assert (below.trace_id, below.parent_span_id, below.status.code) == (told.trace_id, told.span_id, 0)
    assert (attributes_of(told), attributes_of(below)) == ({"a": "x"}, {"b": 2})


def test_a_span_without_a_parent_begins_a_trace_and_one_that_nobody_records_is_not_sent() -> None:
    with open_collector() as collector:
        tracer = load(collector.url)
        for parent in (None, PARENT[:-2] + "00"):
            span = tracer.begin("one", SpanKind.INTERNAL, 1, parent)
            assert span.traceparent.endswith("-00" if parent else "-01")
            span.end(2, {})
        tracer.close()
    (sent,) = collector.spans("umrgen-test")
    assert sent.parent_span_id == b""


def test_a_collector_that_is_away_holds_up_neither_the_spans_nor_the_end(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(otlp, "CLOSE_S", 0.5)
    tracer = load(NOWHERE)
    began = time.perf_counter()
    for _ in range(10_000):  # more than may wait
        tracer.begin("one", SpanKind.INTERNAL, 1).end(2, {})
    assert time.perf_counter() - began < 5
    began = time.perf_counter()
    tracer.close()
    assert time.perf_counter() - began < 2
    assert not [record for record in caplog.records if record.name.startswith("opentelemetry")]


def test_the_log_tells_when_spans_are_lost_and_when_they_arrive_again() -> None:
    with open_collector() as collector, structlog.testing.capture_logs() as logs:
        tracer = load(collector.url)
        collector.status = 400
        for number in range(3):
            tracer.begin("lost", SpanKind.INTERNAL, 1).end(2, {})
            wait_for(lambda number=number: len(collector.bodies) > number)
        collector.status = 200
        tracer.begin("sent", SpanKind.INTERNAL, 1).end(2, {})
        collector.wait_for("umrgen-test", lambda span: span.name == "sent")
        tracer.close()
    assert [(entry["event"], entry["lost"]) for entry in logs] == [("spans_lost", 1), ("spans_sent_again", 3)]


def wait_for(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)
