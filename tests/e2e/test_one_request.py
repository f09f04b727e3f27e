"""One request through both real processes: by its id in logs, status and PNG, and as one trace."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from PIL import Image

from tests.conftest import DEVELOPMENT_KEY, picture_bytes
from tests.docs.vocabulary import CARRIED, DOCUMENTED, EVERYWHERE
from tests.e2e.conftest import Stack
from tests.trace_collector import Collector, attributes_of, open_collector
from umrgen_cli.processes import Daemon
from umrgen_core.logs import log_path

REQUEST_ID = "follow-this.one"
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
STAGES = {"load_references", "encode", "denoise", "decode", "save"}
SLACK_NS = 5_000_000
"""Wall time and the counter that stages are measured by are read one after the other."""


@dataclass
class Told:
    """What one request left behind once everything had stopped."""

    stack: Stack
    collector: Collector
    answer: Any
    status: dict[str, Any]
    picture: bytes
    reference: str

    def read_log(self, process: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in log_path(self.stack.data_dir, process).read_text().splitlines()]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    with open_collector() as collector, ExitStack() as exits:
        environment = {"UMRGEN_TRACE__ENDPOINT": collector.url, "UMRGEN_FILES__REQUIRE_KEY": "true"}
        stack = Stack(tmp_path_factory.mktemp("told") / "data", exits, **environment)
        daemons = [stack.start_infer(), stack.start_api()]
        yield ask(stack, collector, daemons)


def ask(stack: Stack, collector: Collector, daemons: list[Daemon]) -> Told:
    uploaded = stack.upload(picture_bytes(120, 90))
    answer = stack.http.post(
        f"{stack.url}/api/v1/generate",
        json={"prompt": "a canary", "negative": "canary", "reference_images": [uploaded["url"]]},
        headers={"X-Request-ID": REQUEST_ID, "traceparent": f"00-{TRACE}-{SPAN}-01"},
        timeout=30,
    )
    assert answer.status_code == 202, answer.text
    status = stack.wait_status(answer.json()["job_id"])
    assert status["state"] == "completed", status
    picture = stack.http.get(stack.url + status["image_url"], timeout=30).content
    assert [daemon.stop() for daemon in daemons] == [0, 0]
    return Told(stack, collector, answer, status, picture, uploaded["filename"])


def find(spans: list[Span], name: str) -> Span:
    (found,) = [span for span in spans if span.name == name and span.trace_id.hex() == TRACE]
    return found


def test_the_request_id_is_in_the_answer_the_status_and_the_picture(told: Told) -> None:
    assert told.answer.headers["X-Request-ID"] == REQUEST_ID
    assert told.status["request_id"] == REQUEST_ID
    assert json.loads(Image.open(io.BytesIO(told.picture)).info["umrgen"])["request_id"] == REQUEST_ID


def test_the_request_id_is_in_every_line_about_the_job_in_both_logs(told: Told) -> None:
    job_id = told.status["job_id"]
    (accepted,) = [event for event in told.read_log("umrgen-api") if event.get("request_id") == REQUEST_ID]
    assert (accepted["event"], accepted["job_ids"], accepted["status"]) == ("request", [job_id], 202)
    run = [event for event in told.read_log("umrgen-infer") if event.get("job_id") == job_id]
    assert [event["event"] for event in run] == ["run_started", "job_completed", "run_ended"]
    for event in run:
        assert (event["request_id"], event["fence"], event["agent"]) == (REQUEST_ID, 1, accepted["agent"])


@pytest.mark.parametrize("process", ["api", "infer"])
def test_whatever_a_process_has_logged_is_in_the_documented_vocabulary(told: Told, process: str) -> None:
    events = told.read_log(f"umrgen-{process}")
    assert len(events) > 5
    for event in events:
        known = DOCUMENTED[event["event"]]
        assert process in known.processes
        assert event["level"] == known.level
        assert {*event} <= known.fields | CARRIED | EVERYWHERE


def test_the_request_and_its_run_are_one_trace_with_the_right_parents(told: Told) -> None:
    infer = told.collector.spans("umrgen-infer")
    request = find(told.collector.spans("umrgen-api"), "POST /api/v1/generate")
    queued, run = find(infer, "queued"), find(infer, "run")
    assert request.parent_span_id.hex() == SPAN
    assert queued.parent_span_id == run.parent_span_id == request.span_id
    stages = [span for span in infer if span.parent_span_id == run.span_id]
    assert {span.name for span in stages} == STAGES
    assert {span.trace_id.hex() for span in [*infer, request]} == {TRACE}
    what = attributes_of(run)
    expected = {
        "umrgen.job_id": told.status["job_id"],
        "umrgen.request_id": REQUEST_ID,
        "umrgen.fence": 1,
        "umrgen.attempt": 1,
        "umrgen.model": "tiny-klein",
        "umrgen.steps": told.status["steps"],
        "umrgen.outcome": "completed",
    }
    assert what == expected


def test_the_spans_of_a_run_follow_one_another_and_last_as_long_as_the_status_says(told: Told) -> None:
    infer = told.collector.spans("umrgen-infer")
    run, queued = find(infer, "run"), find(infer, "queued")
    order = [find(infer, stage) for stage in ("load_references", "encode", "denoise", "decode", "save")]
    assert queued.end_time_unix_nano <= run.start_time_unix_nano + SLACK_NS
    moments = [run.start_time_unix_nano]
    for stage in order:
        moments += [stage.start_time_unix_nano, stage.end_time_unix_nano]
        lasted_s = (stage.end_time_unix_nano - stage.start_time_unix_nano) / 1e9
        assert lasted_s == pytest.approx(told.status["timings"][stage.name], abs=2e-6)
    moments.append(run.end_time_unix_nano)
    assert all(later >= earlier - SLACK_NS for earlier, later in itertools.pairwise(moments))


def test_no_span_tells_a_prompt_a_key_or_a_file(told: Told) -> None:
    sent = b"".join(told.collector.bodies)
    public = told.status["image_url"].partition("?")[0].rpartition("/")[2]
    for secret in ("canary", DEVELOPMENT_KEY, told.reference, public, "session_id="):
        assert secret.encode() not in sent
    assert b"GET /outputs/{session_id}/{filename}" in sent
