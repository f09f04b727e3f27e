from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from tests.api.conftest import HEADERS, Server, StartServer
from tests.conftest import DEVELOPMENT_KEY
from tests.trace_collector import Collector, attributes_of, open_collector

SERVICE = "umrgen-api"
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"
BAD = [f"00-{'0' * 32}-{SPAN}-01", PARENT.upper(), "canary", f"{PARENT}, {PARENT}", PARENT + "x" * 3000]


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    with open_collector() as opened:
        yield opened


@pytest.fixture
async def traced(start_server: StartServer, collector: Collector) -> Server:
    return await start_server(trace={"endpoint": collector.url}, limits={"concurrent_jobs": 9})


async def find_span(collector: Collector, request_id: str) -> Any:
    return await asyncio.to_thread(
        collector.wait_for, SERVICE, lambda span: attributes_of(span)["umrgen.request_id"] == request_id
    )


async def read_kept(server: Server, job_id: str) -> str | None:
    row = await server.services.database.reader.one("SELECT traceparent FROM jobs WHERE id = :id", id=job_id)
    assert row is not None
    return row["traceparent"]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("method", "path", "name", "status"),
    [
        ("GET", "/healthz", "GET /healthz", 200),
        ("GET", "/api/v1/status/canary-job?key=canary", "GET /api/v1/status/{job_id}", 404),
        ("GET", "/outputs/sid_ext_gen/canary.png?session_id=sid_ext_gen", "GET /outputs/{session_id}/{filename}", 404),
        ("GET", "/canary/path", "GET", 404),
        ("PROPFIND", "/healthz", "_OTHER", 405),
        ("POST", "/healthz", "POST", 405),
    ],
)
async def test_a_request_is_a_span_named_by_its_route(
    traced: Server, collector: Collector, method: str, path: str, name: str, status: int
) -> None:
    headers = {"X-Request-ID": "this-one", "Cookie": "a=canary", "Referer": "http://canary/"}
    async with traced.session.request(method, path, headers=headers) as response:
        assert response.status == status
    span = await find_span(collector, "this-one")
    told = attributes_of(span)
    assert (span.name, told["http.response.status_code"], span.status.code) == (name, status, 0)
    assert set(told) - {"http.route"} == {"http.request.method", "http.response.status_code", "umrgen.request_id"}
    assert 0 < span.end_time_unix_nano - span.start_time_unix_nano < 30e9
    sent = b"".join(collector.bodies)
    assert b"anary" not in sent
    assert DEVELOPMENT_KEY.encode() not in sent


async def test_a_job_is_kept_with_the_span_of_its_request_which_goes_on_from_the_clients(
    traced: Server, collector: Collector
) -> None:
    headers = {"X-Request-ID": "this-one", "traceparent": PARENT}
    _, accepted, _ = await traced.call(
        "POST", "/api/v1/generate", json={"prompt": "a canary"}, headers={**headers, "Idempotency-Key": "once"}
    )
    span = await find_span(collector, "this-one")
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, SPAN)
    assert await read_kept(traced, accepted["job_id"]) == f"00-{TRACE}-{span.span_id.hex()}-01"
    assert b"canary" not in b"".join(collector.bodies)


@pytest.mark.parametrize("bad", BAD)
async def test_a_traceparent_that_is_not_one_is_ignored(traced: Server, collector: Collector, bad: str) -> None:
    async with traced.session.get("/healthz", headers={"X-Request-ID": "this-one", "traceparent": bad}) as response:
        assert response.status == 200
    span = await find_span(collector, "this-one")
    assert (span.parent_span_id, span.trace_id.hex() == TRACE) == (b"", False)


async def test_a_client_that_records_nothing_is_not_recorded(traced: Server, collector: Collector) -> None:
    unrecorded = PARENT[:-2] + "00"
    _, accepted, _ = await traced.call(
        "POST", "/api/v1/generate", json={"prompt": "a star"}, headers={"traceparent": unrecorded}
    )
    kept = await read_kept(traced, accepted["job_id"])
    assert kept is not None
    assert (kept[:35], kept[-3:]) == (unrecorded[:35], "-00")
    await traced.session.get("/healthz", headers={"X-Request-ID": "next"})
    await find_span(collector, "next")
    assert [span.name for span in collector.spans(SERVICE)] == ["GET /healthz"]


async def test_without_tracing_a_job_keeps_the_clients_own_span_and_nothing_else(start_server: StartServer) -> None:
    server = await start_server(limits={"concurrent_jobs": 9})
    for offered, kept in [(PARENT, PARENT), *((bad, None) for bad in BAD), (None, None)]:
        headers = HEADERS | ({} if offered is None else {"traceparent": offered})
        status, accepted, _ = await server.call("POST", "/api/v1/generate", json={"prompt": "a star"}, headers=headers)
        assert status == 202, accepted
        assert await read_kept(server, accepted["job_id"]) == kept
