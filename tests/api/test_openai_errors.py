"""Everything that the OpenAI API refuses, in its own shape."""

from __future__ import annotations

import re
from typing import Any

import aiohttp
import pytest

from tests.api.conftest import Server, StartServer
from tests.api.openai_requests import (
    EDITS,
    GENERATIONS,
    WIDE,
    Answer,
    begin,
    check_error,
    edit,
    end,
    fail_next,
    list_jobs,
    wait_for_jobs,
)
from tests.api.test_status import complete_next
from tests.api.test_upload import list_incoming
from tests.conftest import ROOT, picture_bytes
from umrgen_api.errors import HTTP_ERRORS
from umrgen_api.openai import routes
from umrgen_api.openai.errors import KINDS, describe_error
from umrgen_core.errors import ConfigError
from umrgen_core.files import Shelf
from umrgen_core.jobs import ErrorCode
from umrgen_core.keys import digest_key, mint_key

JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "multipart/form-data; boundary=B"}

REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "no prompt": ({"prompt": None}, "missing_required_parameter", "prompt"),
    "an empty prompt": ({"prompt": " "}, "invalid_value", "prompt"),
    "no picture": ({"n": 0}, "invalid_value", "n"),
    "too many pictures": ({"n": 11}, "invalid_value", "n"),
    "a size in words": ({"size": "large"}, "invalid_value", "size"),
    "too small a size": ({"size": "8x8"}, "invalid_value", "size"),
    "too large a size": ({"size": "99999x64"}, "invalid_value", "size"),
    "another format": ({"output_format": "webp"}, "invalid_value", "output_format"),
    "transparency": ({"background": "transparent"}, "invalid_value", "background"),
    "a mask": ({"mask": "x"}, "invalid_value", "mask"),
    "an unknown way to answer": ({"response_format": "file"}, "invalid_value", "response_format"),
    "a stream of urls": ({"stream": True, "response_format": "url"}, "invalid_value", "response_format"),
    "too many partial images": ({"stream": True, "partial_images": 4}, "invalid_value", "partial_images"),
    "too many steps": ({"steps": 51}, "invalid_value", "steps"),
    "a seed in words": ({"seed": "x"}, "invalid_value", "seed"),
    "true for a number": ({"n": True}, "invalid_value", "n"),
}


async def test_what_cannot_be_done_is_said_in_its_error(server: Server) -> None:
    for name, (fields, code, param) in REFUSED.items():
        message = check_error(await end(begin(server, **fields)), 400, code, param)
        assert message.startswith(f"{param}: "), name
        assert not {"width:", "reference_images", "Input should"} & set(message.split()), message
    assert await list_jobs(server) == []


async def test_a_blocked_prompt_tells_category_and_stage(server: Server) -> None:
    status, body, _ = answer = await end(begin(server, prompt="a porn poster"))
    assert (status, body["error"]["type"]) == (400, "image_generation_user_error")
    assert body["error"]["moderation_details"] == {"categories": ["sexual"], "moderation_stage": "input"}
    check_error(answer, 400, "moderation_blocked", "prompt")


async def test_an_edit_is_refused_for_what_is_wrong_with_it(start_server: StartServer) -> None:
    server = await start_server(limits=WIDE)
    good = picture_bytes()
    assert "image 2" in check_error(await edit(server, [good, b"nothing"]), 400, "invalid_image_file", "image")
    check_error(await edit(server, []), 400, "missing_required_parameter", "image")
    assert "at most 2 references" in check_error(await edit(server, [good] * 3), 400, "invalid_value", "image")
    check_error(await edit(server, [good] * 17), 400, "invalid_value", "image")
    check_error(await edit(server, [good], mask="x"), 400, "invalid_value", "mask")
    check_error(await edit(server, [good], n="two"), 400, "invalid_value", "n")
    check_error(await edit(server, [good], user="x" * 70_000), 413, "request_too_large")
    check_error(await edit(server, [b"x" * (10 * 1024 * 1024 + 1)]), 413, "file_too_large", "image")
    check_error(await server.call("POST", EDITS, json={"prompt": "x"}), 415, "unsupported_media_type")
    head = b"--B\r\nContent-Disposition: form-data"
    for broken in (
        *(
            b"",
            b"--B\r\n",
            b"--C--\r\n",
            head + b"\r\n\r\nx\r\n--B--\r\n",
            head + b'; name="n"\r\n\r\n\xff\r\n--B--\r\n',
        ),
        b"".join(head + b'; name="%d"\r\n\r\nx\r\n' % number for number in range(49)) + b"--B--\r\n",
    ):
        answer = await server.call("POST", EDITS, data=broken, headers=FORM)
        error = answer[1]["error"]
        assert error["param"] in ("request", "image"), broken[:200]
        check_error(answer, 400, error["code"], error["param"])
    assert list_incoming(server) == []
    assert await list_jobs(server) == []


async def test_the_ways_a_job_ends_without_a_picture_are_errors(server: Server) -> None:
    for error_code, retryable, status, code, param, should_retry in [
        ("out_of_memory", True, 500, "out_of_memory", None, "true"),
        ("model_error", False, 500, "model_error", None, "false"),
        ("invalid_reference", False, 400, "invalid_image_file", "image", None),
    ]:
        waiting = begin(server)
        await fail_next(server, error_code, retryable=retryable)
        answer = await end(waiting)
        assert check_error(answer, status, code, param).startswith("A sentence.")
        assert answer[2].get("X-Should-Retry") == should_retry


async def test_a_cancelled_job_is_a_conflict_that_no_retry_mends(server: Server) -> None:
    waiting = begin(server)
    (job,) = await wait_for_jobs(server, 1)
    await server.call("DELETE", f"/api/v1/jobs/{job['job_id']}")
    answer = await end(waiting)
    check_error(answer, 409, "job_cancelled")
    assert answer[2]["X-Should-Retry"] == "false"


async def test_a_picture_whose_file_is_damaged_is_never_sent(server: Server) -> None:
    waiting = begin(server)
    (job,) = await wait_for_jobs(server, 1)
    await complete_next(server)
    for path in (server.services.settings.storage.data_dir / "files" / Shelf.OUTPUTS).iterdir():
        path.write_bytes(b"x")
    server.services.changes.notify(job["job_id"])
    check_error(await end(waiting), 500, "file_lost")


def test_every_error_that_http_can_meet_has_its_shape_here() -> None:
    assert set(KINDS) == set(HTTP_ERRORS)
    assert describe_error(ConfigError("x"))["code"] == "internal_error"


def test_every_code_is_in_the_docs() -> None:
    page = (ROOT / "docs" / "openai.md").read_text(encoding="utf-8")
    for error, (_, code) in KINDS.items():
        assert re.search(rf"^\| {HTTP_ERRORS[error].status} \| .*`{code}`", page, re.MULTILINE), code
    for code in {*ErrorCode} - {ErrorCode.INVALID_REFERENCE, ErrorCode.CONTENT_BLOCKED}:
        assert re.search(rf"^\| 500 \| .*`{code}`", page, re.MULTILINE), code


async def ask(server: Server, method: str, path: str, key: str | None) -> Answer:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(server.url) as session, session.request(method, path, headers=headers) as response:
        return response.status, await response.json(), dict(response.headers)


async def test_below_v1_nothing_is_told_without_a_key(server: Server) -> None:
    for method, path in (
        ("GET", "/v1"),
        ("GET", "/v1/models"),
        ("POST", GENERATIONS),
        ("POST", "/v1/chat/completions"),
    ):
        for key in (None, "wrong", mint_key()):
            answer = await ask(server, method, path, key)
            check_error(answer, 401, "invalid_api_key")
            assert answer[2]["WWW-Authenticate"] == "Bearer"


async def test_other_paths_and_methods_are_errors_of_this_api(server: Server) -> None:
    assert GENERATIONS in check_error(await server.call("POST", "/v1/chat/completions"), 404, "unknown_url")
    answer = await server.call("GET", GENERATIONS)
    check_error(answer, 405, "method_not_supported")
    assert answer[2]["Allow"] == "POST"
    check_error(await server.call("POST", GENERATIONS, data=b"{", headers=JSON), 400, "invalid_json")
    check_error(await server.call("POST", GENERATIONS, data=b"{}", headers={}), 415, "unsupported_media_type")
    assert (await server.call("GET", "/v1x"))[1]["success"] is False


async def test_a_key_needs_the_scopes_of_everything_that_a_request_does(server: Server) -> None:
    for scopes, calls in {
        ("upload", "read"): {GENERATIONS: "generate", EDITS: "generate"},
        ("generate", "upload"): {GENERATIONS: "read", EDITS: "read", "/v1/models": "read"},
        ("generate", "read"): {EDITS: "upload"},
    }.items():
        key = mint_key()
        await server.services.agents.create_agent(scopes[0] + scopes[1], f"sid_ext_{scopes[0]}{scopes[1]}", key)
        statement = f"UPDATE api_keys SET scopes = '{' '.join(scopes)}' WHERE sha256 = '{digest_key(key)}'"
        await server.services.database.writer.run(lambda c, statement=statement: c.execute(statement))
        for path, lacking in calls.items():
            answer = await ask(server, "GET" if path == "/v1/models" else "POST", path, key)
            assert f"'{lacking}'" in check_error(answer, 403, "missing_scope")


async def test_a_failure_of_our_own_is_a_server_error(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr(routes, "read_order", broken)
    answer = await end(begin(server))
    assert "secret" not in check_error(answer, 500, "internal_error")
