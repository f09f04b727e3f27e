from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.api.conftest import Server, StartServer
from tests.api.test_common import AUTH, Answer, ask_raw, ask_with
from tests.api.test_status import accept, claim
from tests.conftest import picture_bytes
from umrgen_api.errors import HTTP_ERRORS
from umrgen_core.errors import InternalError, RequestError, Unavailable
from umrgen_core.job_store import JobStore
from umrgen_core.keys import mint_key
from umrgen_core.lock import LOCK_NAME

GENERATE = "/api/v1/generate"
JSON = {"Content-Type": "application/json"}

TABLE = {
    "range_not_satisfiable": (416, "Range not satisfiable"),  # beyond the contract: files alone
    "invalid_json": (400, "Invalid JSON"),
    "invalid_request": (400, "Invalid request"),
    "safety_violation": (400, "Safety violation"),
    "invalid_image": (400, "Invalid image"),
    "reference_not_found": (400, "Reference not found"),
    "unauthorized": (401, "Unauthorized"),
    "forbidden": (403, "Forbidden"),
    "job_not_found": (404, "Job not found"),
    "not_found": (404, "Not found"),
    "method_not_allowed": (405, "Method not allowed"),
    "request_timeout": (408, "Request timeout"),
    "idempotency_conflict": (409, "Idempotency conflict"),
    "reference_in_use": (409, "Reference in use"),
    "file_too_large": (413, "File exceeds limit"),
    "request_too_large": (413, "Request too large"),
    "unsupported_media_type": (415, "Unsupported media type"),
    "concurrent_limit": (429, "CONCURRENT_LIMIT"),
    "rate_limit": (429, "RATE_LIMIT"),
    "quota_exceeded": (429, "QUOTA_EXCEEDED"),
    "internal_error": (500, "Internal error"),
    "queue_full": (503, "Queue is full"),
    "unavailable": (503, "Unavailable"),
}
RETRYABLE = {"concurrent_limit", "rate_limit", "queue_full", "unavailable"}


def check(answer: Answer, code: str) -> dict[str, Any]:
    """Hold a refusal to its row; its JSON."""
    status, body, headers = answer
    assert (body["code"], status, body["error"]) == (code, *TABLE[code])
    assert body["success"] is False
    assert body["message"].strip()
    assert headers["X-Request-ID"]
    if code in RETRYABLE:
        assert 0 < body["retry_after"] <= int(headers["Retry-After"])
    result: dict[str, Any] = body
    return result


def subclasses(error: type[Exception]) -> Iterator[type[Exception]]:
    for child in error.__subclasses__():
        yield child
        yield from subclasses(child)


def test_every_error_that_http_can_meet_has_its_row() -> None:
    assert set(HTTP_ERRORS) >= {*subclasses(RequestError), Unavailable, InternalError}
    for error, known in HTTP_ERRORS.items():
        assert (known.status, known.error) == TABLE[error.code]


async def test_invalid_json(server: Server) -> None:
    check(await server.call("POST", GENERATE, data=b"{", headers=JSON), "invalid_json")


async def test_invalid_request_names_field_problem_limit_and_nearest(server: Server) -> None:
    body = check(await server.generate(width=10, prompt=5), "invalid_request")
    problems = {problem["field"]: problem for problem in body["errors"]}
    assert set(problems) == {"width", "prompt"}
    assert (problems["width"]["limit"], problems["width"]["nearest"]) == (64, 64)
    assert all(problem["problem"] for problem in problems.values())


async def test_safety_violation_tells_the_category(server: Server) -> None:
    body = check(await server.generate(prompt="a porn poster"), "safety_violation")
    assert body["category"] == "sexual"


async def test_invalid_image_tells_the_reason(server: Server) -> None:
    body = check(await server.upload(b"no picture"), "invalid_image")
    assert "PNG, JPEG or WebP" in body["reason"]


@pytest.mark.parametrize("name", ["", "image_1.png", "/", "../x", "https://a/b/c", "\x00", "ä" * 2000, "/outputs/a/b"])
async def test_reference_not_found_whatever_its_shape(server: Server, name: str) -> None:
    body = check(await server.generate(reference_images=[name]), "reference_not_found")
    assert body["filename"] == name


async def test_unauthorized(server: Server) -> None:
    answer = await ask_with(server, {})
    check(answer, "unauthorized")
    assert answer[2]["WWW-Authenticate"] == "Bearer"


async def test_forbidden_without_the_session_of_a_file(server: Server) -> None:
    check(await ask_with(server, {}, "/outputs/sid_ext_gen/umrgen_1.png"), "forbidden")


async def test_forbidden_without_the_scope(server: Server) -> None:
    key = mint_key()
    await server.services.agents.create_agent("bob", "sid_ext_bob", key, "read")
    headers = {"Authorization": f"Bearer {key}"}
    for path in (GENERATE, "/api/v1/upload-reference"):
        check(await ask_with(server, headers, path, "POST"), "forbidden")
    assert (await ask_with(server, headers, "/api/v1/references"))[0] == 200


async def test_job_not_found(server: Server) -> None:
    check(await server.call("GET", "/api/v1/status/ext_none"), "job_not_found")


async def test_not_found(server: Server) -> None:
    check(await server.call("GET", "/api/v1/nothing"), "not_found")
    check(await server.call("GET", "/outputs/sid_ext_gen/umrgen_1.png?session_id=sid_ext_gen"), "not_found")
    check(await server.call("DELETE", "/api/v1/references/image_1.png"), "not_found")


async def test_method_not_allowed_tells_those_that_are(server: Server) -> None:
    answer = await server.call("DELETE", GENERATE)
    check(answer, "method_not_allowed")
    assert answer[2]["Allow"] == "POST"


@pytest.mark.parametrize("path", [GENERATE, "/api/v1/upload-reference"])
async def test_request_timeout(start_server: StartServer, path: str) -> None:
    server = await start_server(api={"body_timeout_s": 0.2})
    media_type = b"application/json" if path == GENERATE else b"multipart/form-data; boundary=B"
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nContent-Type: ".encode() + media_type
    check(await ask_raw(server.url, head + b"\r\n" + AUTH + b"\r\n--B"), "request_timeout")


async def test_reference_in_use_until_the_job_has_ended(server: Server) -> None:
    filename = (await server.upload(picture_bytes()))[1]["filename"]
    await accept(server, reference_images=[filename])
    check(await server.call("DELETE", f"/api/v1/references/{filename}"), "reference_in_use")
    claimed = await claim(server)
    check(await server.call("DELETE", f"/api/v1/references/{filename}"), "reference_in_use")
    await server.services.claims.fail(claimed, "model_error", "Broken.", retryable=False)
    assert (await server.call("DELETE", f"/api/v1/references/{filename}"))[0] == 200


async def test_file_too_large(server: Server) -> None:
    check(await server.upload(b"x" * 10_485_761), "file_too_large")


async def test_request_too_large(server: Server) -> None:
    check(await server.generate(prompt="x" * 65_536), "request_too_large")


async def test_unsupported_media_type(server: Server) -> None:
    check(await server.call("POST", "/api/v1/upload-reference", json={}), "unsupported_media_type")
    headers = {"Content-Type": "text/plain"}
    check(await server.call("POST", GENERATE, data=b"{}", headers=headers), "unsupported_media_type")


async def test_concurrent_limit_names_the_oldest_job_and_how_far_it_is(start_server: StartServer) -> None:
    server = await start_server(limits={"concurrent_jobs": 2})
    oldest, _ = [await accept(server) for _ in range(2)]
    body = check(await server.generate(), "concurrent_limit")
    assert (body["job_id"], body["state"], body["progress"]["step"]) == (oldest, "queued", 0)
    await server.services.claims.put_progress(await claim(server), 1)
    body = check(await server.generate(), "concurrent_limit")
    assert (body["job_id"], body["state"]) == (oldest, "running")
    assert body["progress"] == {"step": 1, "steps": 4, "fraction": 0.25}


async def test_rate_limit(start_server: StartServer) -> None:
    server = await start_server(limits={"rate_per_minute": 0})
    check(await server.generate(), "rate_limit")
    check(await server.upload(picture_bytes()), "rate_limit")


@pytest.mark.parametrize("limits", [{"references": 1}, {"reference_bytes": 30_000}])
async def test_quota_exceeded_for_references_says_how_to_free_some(
    start_server: StartServer, limits: dict[str, int]
) -> None:
    server = await start_server(limits=limits)
    _, kept, _ = await server.upload(picture_bytes(seed=1))
    body = check(await server.upload(picture_bytes(seed=2)), "quota_exceeded")
    assert "DELETE /api/v1/references" in body["message"]
    assert (await server.upload(picture_bytes(seed=1)))[0] == 200
    await server.call("DELETE", f"/api/v1/references/{kept['filename']}")
    assert (await server.upload(picture_bytes(seed=2)))[0] == 200


async def test_quota_exceeded_for_outputs(start_server: StartServer) -> None:
    server = await start_server(limits={"output_bytes": 0})
    check(await server.generate(), "quota_exceeded")


async def test_internal_error_tells_nothing_of_the_bug(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(*_: object) -> None:
        raise KeyError("secret of /srv/umrgen")

    monkeypatch.setattr(JobStore, "read_standing", break_down)
    answer = await server.call("GET", "/api/v1/status/ext_none", headers={"X-Request-ID": "mine"})
    check(answer, "internal_error")
    assert answer[2]["X-Request-ID"] == "mine"
    assert not any(word in str(answer) for word in ("secret", "/srv", "KeyError", "Traceback"))


async def test_queue_full(start_server: StartServer) -> None:
    server = await start_server(limits={"queued_jobs": 2, "concurrent_jobs": 9})
    for _ in range(2):
        await accept(server)
    check(await server.generate(), "queue_full")
    await claim(server)
    await accept(server)


@contextmanager
def held_lock(data_dir: Path) -> Iterator[None]:
    """The store's lock, held by somebody else."""
    with open(data_dir / LOCK_NAME) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


async def test_unavailable_while_another_process_holds_the_store(start_server: StartServer) -> None:
    server = await start_server(storage={"lock_timeout_s": 0.2}, limits={"concurrent_jobs": 9})
    job_id = await accept(server)
    with held_lock(server.services.settings.storage.data_dir):
        check(await server.generate(), "unavailable")
        assert (await server.call("GET", f"/api/v1/status/{job_id}"))[0] == 200
    await accept(server)
    assert (await server.call("GET", f"/api/v1/status/{job_id}"))[1]["queue_position"] == 1


async def test_unavailable_when_the_schema_changed_underneath(server: Server) -> None:
    await server.services.database.writer.run(lambda c: c.execute("PRAGMA user_version = 99"))
    for answer in (await server.generate(), await server.upload(picture_bytes())):
        body = check(answer, "unavailable")
        assert str(server.services.settings.storage.data_dir) not in body["message"]
