"""What is sent again, when, and what is not: the flows by themselves, without a network."""

from __future__ import annotations

import json
from typing import Any

import pytest

from umrgen_client import (
    BadAnswer,
    ConcurrentLimit,
    InvalidRequest,
    Refused,
    UmrgenError,
    Unavailable,
    Unreachable,
    WaitTimeout,
)
from umrgen_client.calls import Calls
from umrgen_client.exchange import Done, Flow, Pause, Request, Response, Retry, Step, Tell, advance
from umrgen_client.feed import Feed

QUEUED = {
    "job_id": "ext_1",
    "state": "queued",
    "created_at": "2026-11-23T01:00:00.000000Z",
    "attempts": 0,
    "prompt": "x",
    "negative": "",
    "width": 64,
    "height": 64,
    "steps": 4,
    "seed": 1,
    "model": "m",
}
RUNNING = {**QUEUED, "state": "running"}
COMPLETED = {**QUEUED, "state": "completed", "image_url": "/outputs/s/umrgen_1.png?session_id=s", "sha256": "0"}
ACCEPTED = {"job_id": "ext_1"}
LOST = Unreachable("gone")


def ok(body: dict[str, Any], status: int = 200) -> Response:
    return Response(status, {}, json.dumps({"success": True, **body}).encode())


def refusal(status: int, code: str, **extra: Any) -> Response:
    return ok({"success": False, "code": code, "message": "no", **extra}, status)


def play(flow: Flow[Any], *answers: Response | Unreachable) -> tuple[list[Step], Any]:
    """Every step of a flow that gets these answers, and what it returned or raised."""
    left, steps = list(answers), []
    answer, failure = None, None
    while True:
        try:
            step = advance(flow, answer, failure)
        except (UmrgenError, ValueError) as error:
            return steps, error
        if isinstance(step, Done):
            assert not left, "some answers were not asked for"
            return steps, step.value
        steps.append(step)
        answer, failure = None, None
        if isinstance(step, Request):
            found = left.pop(0)
            answer, failure = (None, found) if isinstance(found, Unreachable) else (found, None)


def calls(**retry: float) -> Calls:
    return Calls(Retry(draw=lambda: 1.0, **retry), clock=Clock())


class Clock:
    """A second later at each look."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def pauses(steps: list[Step]) -> list[float]:
    return [step.seconds for step in steps if isinstance(step, Pause)]


def test_a_full_place_is_waited_for_as_long_as_the_service_says() -> None:
    busy = refusal(429, "concurrent_limit", retry_after=7.5, job_id="ext_0")
    steps, status = play(calls().generate({"prompt": "x"}, [], None), busy, busy, ok(ACCEPTED, 202), ok(QUEUED))
    assert status["job_id"] == "ext_1"
    assert pauses(steps) == [7.5, 7.5]
    sent = [step for step in steps if isinstance(step, Request) and step.method == "POST"]
    assert len({step.headers["Idempotency-Key"] for step in sent}) == 1


def test_patience_ends_before_it_would_be_exceeded() -> None:
    busy = refusal(429, "concurrent_limit", retry_after=7.5)
    steps, error = play(calls(patience_s=20).get("/me"), busy, busy, busy)
    assert isinstance(error, ConcurrentLimit)
    assert (pauses(steps), error.retry_after) == ([7.5, 7.5], 7.5)


def test_a_lost_service_is_tried_ever_less_often_and_not_for_long() -> None:
    steps, error = play(calls(outage_s=4).get("/me"), *[LOST] * 5)
    assert error is LOST
    assert pauses(steps) == [0.25, 0.5, 1.0, 2.0]


def test_a_proxys_page_counts_as_a_service_that_starts_again() -> None:
    page = Response(502, {}, b"<html>Bad Gateway</html>")
    steps, body = play(calls().get("/me"), page, ok({"agent": "a"}))
    assert (body["agent"], pauses(steps)) == ("a", [0.25])


def test_the_retry_after_header_counts_where_the_body_has_none() -> None:
    limited = Response(503, {"retry-after": "3"}, b"busy")
    assert pauses(play(calls().get("/me"), limited, ok({}))[0]) == [3.0]


@pytest.mark.parametrize("answer", [refusal(400, "invalid_request"), refusal(500, "internal_error")])
def test_what_will_not_change_is_not_sent_again(answer: Response) -> None:
    steps, error = play(calls().get("/me"), answer)
    assert isinstance(error, Refused)
    assert pauses(steps) == []
    assert isinstance(error, InvalidRequest) == (answer.status == 400)


@pytest.mark.parametrize("failure", [LOST, refusal(503, "unavailable", retry_after=1.0)])
def test_a_deletion_of_unknown_outcome_is_not_sent_again(failure: Response | Unreachable) -> None:
    steps, error = play(calls().erase("ext_1"), failure)
    assert isinstance(error, Unreachable | Unavailable)
    assert len(steps) == 1


def test_a_job_whose_status_is_lost_is_not_lost_itself() -> None:
    _, error = play(calls(outage_s=0).generate({"prompt": "x"}, [], "key"), ok(ACCEPTED, 202), LOST)
    assert isinstance(error, Unreachable)
    assert error.job_id == "ext_1"


def test_waiting_asks_long_and_watching_asks_each_second() -> None:
    silent, _ = play(calls().wait("ext_1", None, telling=False, check=True), ok(QUEUED), ok(COMPLETED))
    assert [step.params for step in silent if isinstance(step, Request)] == [{"wait": "30.000", "until": "done"}] * 2
    told, _ = play(calls().wait("ext_1", None, telling=True, check=True), ok(QUEUED), ok(RUNNING), ok(COMPLETED))
    assert [step.params for step in told if isinstance(step, Request)] == [{}, {"wait": "5.000"}, {"wait": "1.000"}]
    assert [step.status["state"] for step in told if isinstance(step, Tell)] == ["queued", "running", "completed"]


def test_waiting_ends_with_its_time_and_says_that_the_job_goes_on() -> None:
    steps, error = play(calls().wait("ext_1", 2.5, telling=False, check=True), *[ok(QUEUED)] * 3)
    assert isinstance(error, WaitTimeout)
    assert [step.params.get("wait") for step in steps if isinstance(step, Request)] == ["1.500", "0.500", None]


def test_a_server_that_answers_waiters_early_is_not_asked_in_a_hurry() -> None:
    hasty = Calls(Retry(), clock=lambda: 0.0)
    steps, _ = play(
        hasty.wait("ext_1", None, telling=False, check=True), ok(QUEUED), ok(QUEUED), ok(QUEUED), ok(COMPLETED)
    )
    assert pauses(steps) == [0.2, 0.2]


def test_a_picture_that_arrives_damaged_is_an_error() -> None:
    from umrgen_client import JobStatus

    _, error = play(calls().fetch(JobStatus.from_json(COMPLETED)), Response(200, {}, b"half"))
    assert isinstance(error, BadAnswer)


def test_another_service_at_the_address_is_named_as_such() -> None:
    for body in (b"<html>hello</html>", b'{"hello": 1}', b"[]"):
        _, error = play(calls().get("/me"), Response(200, {}, body))
        assert isinstance(error, BadAnswer)


def test_a_feed_goes_on_behind_the_last_event_and_forgives_after_news() -> None:
    feed = Feed("ext_1", 0, Retry(draw=lambda: 1.0, outage_s=1))
    assert [feed.lose(LOST), feed.lose(LOST)] == [0.25, 0.5]
    feed.take("progress", "41", json.dumps(QUEUED))
    assert (feed.last_event_id, feed.rest(), feed.lose(LOST)) == (41, 0.2, 0.25)
    feed.take("done", "42", json.dumps(COMPLETED))
    assert (feed.ended, feed.rest()) == (True, 0.0)
    with pytest.raises(Refused):
        feed.answer(refusal(404, "job_not_found"))
