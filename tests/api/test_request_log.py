"""The line and the counts of a request: made when its answer is on its way, each with what is its own."""

from __future__ import annotations

import asyncio
import contextvars

import structlog
from prometheus_client import CollectorRegistry

from umrgen_api.metrics import WebMetrics
from umrgen_api.request_log import Answered, RequestLog


def _answered(status: int, *, waited: bool = False) -> Answered:
    return Answered("/api/v1/jobs", "GET", status, "alice", 0.0123456789, None, waited)


async def test_requests_of_one_round_are_told_together_each_under_its_own_id() -> None:
    registry = CollectorRegistry()
    log = RequestLog(WebMetrics(registry, []))

    def answer(number: int) -> None:
        structlog.contextvars.bind_contextvars(request_id=f"id{number}")
        log.note(_answered(200 + number))

    with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as lines:
        for number in range(3):
            contextvars.copy_context().run(answer, number)
        assert not lines  # nobody waits for them
        await asyncio.sleep(0)
        assert [(line["request_id"], line["status"]) for line in lines] == [("id0", 200), ("id1", 201), ("id2", 202)]
        assert lines[0] == {
            "event": "request",
            "log_level": "info",
            "request_id": "id0",
            "method": "GET",
            "route": "/api/v1/jobs",
            "status": 200,
            "agent": "alice",
            "duration_s": 0.012346,
        }
        log.note(_answered(500))
        await asyncio.sleep(0)
        assert lines[3]["status"] == 500
    counted = {"route": "/api/v1/jobs", "method": "GET"}
    assert registry.get_sample_value("umrgen_http_requests_total", counted | {"status": "2xx"}) == 3
    assert registry.get_sample_value("umrgen_http_requests_total", counted | {"status": "5xx"}) == 1


async def test_a_request_that_asked_to_wait_is_counted_but_not_timed() -> None:
    registry = CollectorRegistry()
    log = RequestLog(WebMetrics(registry, []))
    log.note(_answered(200, waited=True))
    log.note(_answered(200))
    await asyncio.sleep(0)
    assert registry.get_sample_value("umrgen_http_request_seconds_count", {"route": "/api/v1/jobs"}) == 1
