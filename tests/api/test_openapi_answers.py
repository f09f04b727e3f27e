"""Real answers are those of the description: every endpoint, every state of a job, nearly every refusal."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.api.conftest import Server, StartServer
from tests.api.described import DESCRIPTION, ask, find_misfit, hold
from tests.api.test_common import AUTH, ask_raw
from tests.api.test_contract_errors import held_lock
from tests.api.test_events import read_events
from tests.api.test_status import accept, claim, complete_next, request_cancel
from tests.conftest import DEVELOPMENT_KEY, picture_bytes
from umrgen_api.webhooks import render_body
from umrgen_core.job_store import JobStore
from umrgen_core.keys import mint_key
from umrgen_core.webhooks import Delivery

GENERATE, UPLOAD = "/api/v1/generate", "/api/v1/upload-reference"
MANY = {"concurrent_jobs": 30, "rate_per_minute": 1000}


def form(content: bytes) -> aiohttp.FormData:
    data = aiohttp.FormData()
    data.add_field("file", content, filename="image.png")
    return data


async def test_references_and_what_tells_of_the_service_answer_as_described(server: Server) -> None:
    _, uploaded, _ = await ask(server, "POST", UPLOAD, data=form(picture_bytes()))
    await ask(server, "GET", "/api/v1/references")
    for headers in ({}, {"Range": "bytes=0-9"}, {"Range": "bytes=999999999-"}, {"If-None-Match": "*"}):
        for method in ("GET", "HEAD"):
            await ask(server, method, uploaded["url"], headers=headers)
    for path in ("/references/sid_ext_gen/image_1.png?session_id=sid_ext_gen", "/references/a/image_1.png"):
        await ask(server, "GET", path)
    for path in ("/api/v1/models", "/api/v1/me", "/healthz", "/readyz"):
        await ask(server, "GET", path)
    path = f"/api/v1/references/{uploaded['filename']}"
    assert [(await ask(server, "DELETE", path))[0] for _ in range(2)] == [200, 404]


async def test_jobs_answer_as_described_in_every_state(start_server: StartServer) -> None:
    server = await start_server(limits=MANY)
    for _ in range(2):
        await ask(server, "POST", GENERATE, json={"prompt": "x", "odd": 1}, headers={"Idempotency-Key": "one"})
    queued, running, asked, failed, completed = [await accept(server) for _ in range(5)]
    await ask(server, "DELETE", f"/api/v1/jobs/{(await ask(server, 'GET', '/api/v1/jobs'))[1]['jobs'][-1]['job_id']}")
    await ask(server, "GET", f"/api/v1/status/{queued}")
    for job_id in (queued, running, asked, failed):
        assert (await claim(server)).job_id == job_id
    output = await complete_next(server)
    await request_cancel(server, asked)
    await ask(server, "GET", f"/outputs/sid_ext_gen/{output.filename}?session_id=sid_ext_gen")
    await ask_about(server, completed, failed)


async def ask_about(server: Server, completed: str, running: str) -> None:
    """Everything that may be asked about jobs that stand in every state."""
    states = [job["state"] for job in (await ask(server, "GET", "/api/v1/jobs"))[1]["jobs"]]
    assert {"running", "completed", "cancelled"} <= set(states)
    path = f"/api/v1/status/{completed}"
    _, _, headers = await ask(server, "GET", path, headers={"Prefer": "wait=1"})
    assert (await ask(server, "GET", path, headers={"If-None-Match": headers["Etag"]}))[0] == 304
    for query in ("?wait=29.999876543210123&until=done", "?wait=1e-05", "?wait=61", "?until=now"):
        await ask(server, "GET", path + query)
    for query in ("?limit=1", "?limit=0", "?state=failed", "?state=x", "?cursor=x"):
        await ask(server, "GET", f"/api/v1/jobs{query}")
    await ask(server, "GET", "/api/v1/me")
    await ask(server, "DELETE", f"/api/v1/jobs/{running}?erase=true")
    await ask(server, "DELETE", f"/api/v1/jobs/{completed}?erase=true")
    assert (await ask(server, "GET", path))[0] == 404


async def test_a_failed_job_and_a_place_far_behind_are_as_described(start_server: StartServer) -> None:
    server = await start_server(limits={"concurrent_jobs": 200, "rate_per_minute": 1000})
    job_id = await accept(server)
    await server.services.claims.fail(await claim(server), "model_error", "Broken.", retryable=True)
    assert (await ask(server, "GET", f"/api/v1/status/{job_id}"))[1]["state"] == "failed"
    last = [await accept(server) for _ in range(102)][-1]
    assert (await ask(server, "GET", f"/api/v1/status/{last}"))[1]["queue_position_capped"] is True


async def test_a_webhook_is_as_described(start_server: StartServer) -> None:
    server = await start_server(limits=MANY)
    ids = [await accept(server) for _ in range(3)]
    await complete_next(server)
    await server.services.claims.fail(await claim(server), "model_error", "Broken.", retryable=True)
    await server.call("DELETE", f"/api/v1/jobs/{ids[2]}")
    agent = await server.services.agents.find_by_key(DEVELOPMENT_KEY)
    for job_id in ids:
        job = await server.services.jobs.find(agent, job_id)
        delivery = Delivery(job, "https://agent.example/", 1, 1, agent.session_id, 1, None)
        for public_url in ("", "https://umrgen.example"):
            body = json.loads(render_body(delivery, public_url))
            assert find_misfit({"$ref": "#/components/schemas/Webhook"}, body) is None


async def test_events_are_as_described(server: Server) -> None:
    job_id = await accept(server)
    await complete_next(server)
    path = f"/api/v1/events/{job_id}"
    event = DESCRIPTION["components"]["schemas"]["Event"]
    async with server.session.get(path) as response:
        assert (
            response.content_type
            in DESCRIPTION["paths"]["/api/v1/events/{job_id}"]["get"]["responses"]["200"]["content"]
        )
        events = [one async for one in read_events(response)]
    for one in events:
        assert find_misfit(event["properties"]["data"]["contentSchema"], one["data"]) is None
        assert find_misfit(event, {**one, "data": json.dumps(one["data"])}) is None
    await ask(server, "GET", path, headers={"Last-Event-ID": events[-1]["id"]})
    await ask(server, "GET", "/api/v1/events/ext_none")


async def test_refusals_of_requests_are_as_described(start_server: StartServer) -> None:
    server = await start_server(limits={"concurrent_jobs": 2, "references": 1})
    filename = (await server.upload(picture_bytes()))[1]["filename"]
    typed = {"Content-Type": "application/json"}
    bodies: list[dict[str, Any]] = [
        *(
            {"data": b"{", "headers": typed},
            {"data": b"{}"},
            {"json": {"prompt": "x" * 70_000}},
            {"json": {"width": 1}},
        ),
        *({"json": {"prompt": "a porn poster"}}, {"json": {"prompt": "x", "reference_images": ["a"]}}),
        *({"json": {"prompt": "x", "reference_images": [filename]}, "headers": {"Idempotency-Key": "one"}},),
        *({"json": {"prompt": "y"}, "headers": {"Idempotency-Key": "one"}}, {"json": {"prompt": "y"}}),
        {"json": {"prompt": "y"}},
    ]
    codes = [(await ask(server, "POST", GENERATE, **body))[1].get("code") for body in bodies]
    assert codes == ["invalid_json", "unsupported_media_type", "request_too_large", "invalid_request",
                     "safety_violation", "reference_not_found", None, "idempotency_conflict", None,
                     "concurrent_limit"]  # fmt: skip
    uploads = [picture_bytes(seed=2), b"no picture", b"x" * 10_485_761]
    codes = [(await ask(server, "POST", UPLOAD, data=form(content)))[1]["code"] for content in uploads]
    codes.append((await ask(server, "POST", UPLOAD, json={}))[1]["code"])
    codes.append((await ask(server, "DELETE", f"/api/v1/references/{filename}"))[1]["code"])
    assert codes == ["quota_exceeded", "invalid_image", "file_too_large", "unsupported_media_type", "reference_in_use"]


async def test_refusals_of_callers_and_of_a_service_in_need_are_as_described(
    start_server: StartServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await start_server(
        limits={"queued_jobs": 1, "concurrent_jobs": 9}, storage={"lock_timeout_s": 0.1}, api={"body_timeout_s": 0.2}
    )
    key = mint_key()
    await server.services.agents.create_agent("bob", "sid_ext_bob", key, "generate")
    for value in ("Bearer x", f"Bearer {key}"):
        for method, path in (("GET", "/api/v1/me"), ("GET", "/api/v1/status/ext_none"), ("POST", UPLOAD)):
            assert (await ask(server, method, path, headers={"Authorization": value}))[0] in (401, 403)
    with held_lock(server.services.settings.storage.data_dir):
        assert (await ask(server, "POST", GENERATE, json={"prompt": "x"}))[1]["code"] == "unavailable"
    await accept(server)
    assert (await ask(server, "POST", GENERATE, json={"prompt": "x"}))[1]["code"] == "queue_full"
    head = f"POST {GENERATE} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nContent-Type: application/json\r\n".encode()
    assert hold("POST", GENERATE, await ask_raw(server.url, head + AUTH + b"\r\n{"))[0] == 408

    def break_down(*_: object) -> None:
        raise KeyError

    monkeypatch.setattr(JobStore, "read_standing", break_down)
    assert (await ask(server, "GET", "/api/v1/status/ext_none"))[0] == 500


async def test_refusals_for_want_of_rate_are_as_described(start_server: StartServer) -> None:
    server = await start_server(limits={"rate_per_minute": 0, "reads_per_minute": 0})
    asked = [("POST", GENERATE), ("POST", UPLOAD), ("GET", "/api/v1/me"), ("GET", "/api/v1/openapi.json")]
    answers = await asyncio.gather(*(ask(server, method, path) for method, path in asked))
    assert [body["code"] for _, body, _ in answers] == ["rate_limit"] * 4
