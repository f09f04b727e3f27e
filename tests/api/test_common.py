from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import requests

from tests.api.conftest import Server, StartServer
from tests.conftest import DEVELOPMENT_KEY, FakeClock, make_settings
from umrgen_api.app import build_app
from umrgen_core.errors import ConfigError
from umrgen_core.keys import digest_key, mint_key

STATUS = "/api/v1/status/ext_none"
BEARER = f"Bearer {DEVELOPMENT_KEY}"
AUTH = f"Authorization: {BEARER}\r\n".encode()
LARGE = b"x" * 30_000_000

Answer = tuple[int, Any, dict[str, str]]


async def ask_raw(url: str, sent: bytes, timeout_s: float = 8) -> Answer:
    """Send bytes that no client library would and read the first answer: status, JSON, headers."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(sent)
    try:
        async with asyncio.timeout(timeout_s):
            head = await reader.readuntil(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")[:-2]
            headers = dict(line.split(": ", 1) for line in lines)
            body = await reader.readexactly(int(headers["Content-Length"]))
    finally:
        writer.close()
    return int(first.split()[1]), json.loads(body), headers


async def ask_with(server: Server, headers: dict[str, str], path: str = STATUS, method: str = "GET") -> Answer:
    """One request by a client that adds no key of its own."""
    async with (
        aiohttp.ClientSession(server.url) as session,
        session.request(method, path, headers=headers) as response,
    ):
        return response.status, await response.json(), dict(response.headers)


async def answered_id(server: Server, offered: str) -> str:
    return (await server.call("GET", "/healthz", headers={"X-Request-ID": offered}))[2]["X-Request-ID"]


async def test_a_safe_request_id_of_the_client_is_kept(server: Server) -> None:
    safe = ["a", "A-b_c.9", "x" * 64]
    assert [await answered_id(server, offered) for offered in safe] == safe


async def test_a_key_sent_as_a_request_id_is_kept_nowhere(server: Server) -> None:
    assert not (await answered_id(server, mint_key())).startswith("umr_")


async def test_any_other_request_id_is_replaced_by_a_new_one(server: Server) -> None:
    unsafe = ["", "x" * 65, "a b", "a/b", "ä", "a;b", "", ""]
    answered = {await answered_id(server, offered) for offered in unsafe}
    assert len(answered) == len(unsafe)
    assert not answered & set(unsafe)


async def mint_dead_key(server: Server, column: str) -> str:
    """A key that was good once: expired or revoked a microsecond ago."""
    key, now_us = mint_key(), server.services.clock.wall_us()
    await server.services.agents.create_agent(column, f"sid_ext_{column}", key)
    statement = f"UPDATE api_keys SET {column} = {now_us} WHERE sha256 = '{digest_key(key)}'"
    await server.services.database.writer.run(lambda c: c.execute(statement))
    return key


async def test_every_bad_key_gets_one_and_the_same_401(server: Server) -> None:
    good = mint_key()
    bad = [
        *("", "Bearer", "Bearer ", DEVELOPMENT_KEY, f"Basic {DEVELOPMENT_KEY}", f"Bearer: {DEVELOPMENT_KEY}"),
        *(BEARER + "x", BEARER[:-1], f"{BEARER} {DEVELOPMENT_KEY}", "Bearer ключ", "Bearer " + "x" * 5000),
        *(f"Bearer {good}", f"Bearer {good[:-1]}", f"Bearer {good[:-1]}!"),
        f"Bearer {await mint_dead_key(server, 'expires_at_us')}",
        f"Bearer {await mint_dead_key(server, 'revoked_at_us')}",
    ]
    answers = [await ask_with(server, {})] + [await ask_with(server, {"Authorization": value}) for value in bad]
    assert [status for status, _, _ in answers] == [401] * len(answers)
    assert all(body == answers[0][1] for _, body, _ in answers)
    assert all(headers["WWW-Authenticate"] == "Bearer" for _, _, headers in answers)


async def test_the_scheme_is_matched_without_case(server: Server) -> None:
    for scheme in ("Bearer", "bearer", "BEARER", "bEaReR"):
        assert (await ask_with(server, {"Authorization": f"{scheme} {DEVELOPMENT_KEY}"}))[0] == 404, scheme


async def test_the_development_key_is_refused_through_a_proxy(server: Server) -> None:
    forwarded = ("Forwarded", "forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "x-forwarded-host")
    for name in (*forwarded, "Via", "X-Real-IP", "CF-Connecting-IP", "True-Client-IP"):
        assert (await ask_with(server, {"Authorization": BEARER, name: "1.2.3.4"}))[0] == 401, name


async def test_the_development_key_counts_everywhere_when_the_owner_says_so(start_server: StartServer) -> None:
    server = await start_server(auth={"development_key_public": True})
    status, _, _ = await ask_with(server, {"Authorization": BEARER, "X-Forwarded-For": "1.2.3.4"})
    assert status == 404


async def test_a_minted_key_counts_through_a_proxy(server: Server) -> None:
    key = mint_key()
    await server.services.agents.create_agent("bob", "sid_ext_bob", key)
    status, _, _ = await ask_with(server, {"Authorization": f"Bearer {key}", "X-Forwarded-For": "1.2.3.4"})
    assert status == 404


REACHABLE = [{"host": "0.0.0.0"}, {"host": "::"}, {"host": "192.0.2.1"}, {"public_url": "https://umrgen.example"}]


@pytest.mark.parametrize("api", REACHABLE)
def test_a_server_that_others_can_reach_does_not_start_with_the_development_key(
    tmp_path: Path, clock: FakeClock, api: dict[str, str]
) -> None:
    with pytest.raises(ConfigError, match="development_key"):
        build_app(make_settings(tmp_path, api=api), clock)
    for auth in ({"development_key": ""}, {"development_key_public": True}):
        assert build_app(make_settings(tmp_path, api=api, auth=auth), clock)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_a_server_on_loopback_starts_with_the_development_key(tmp_path: Path, clock: FakeClock, host: str) -> None:
    assert build_app(make_settings(tmp_path, api={"host": host}), clock)


async def test_without_a_development_key_nobody_has_it(start_server: StartServer) -> None:
    first = await start_server()
    assert (await first.call("GET", STATUS))[0] == 404
    second = await start_server(auth={"development_key": ""})
    assert (await second.call("GET", STATUS))[0] == 401


async def test_below_the_api_nothing_is_told_without_a_key(server: Server) -> None:
    for method, path, status in (("GET", "/api/v1", 404), ("GET", "/api/v1/nothing", 404), ("PUT", STATUS, 405)):
        assert (await ask_with(server, {}, path, method))[0] == 401
        assert (await server.call(method, path))[0] == status


async def test_an_unknown_path_elsewhere_is_404_for_everybody(server: Server) -> None:
    for path in ("/", "/api", "/api/v1x", "/api/v2/generate", "/favicon.ico"):
        status, body, _ = await ask_with(server, {}, path)
        assert (status, body["code"]) == (404, "not_found")


def check_headers(headers: dict[str, str]) -> None:
    """What every answer carries, and what none tells."""
    assert headers["Server"] == "umrgen"
    assert headers["X-Request-ID"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert not {"aiohttp", "python"} & set(str(headers).lower().replace("/", " ").split())


async def test_every_answer_carries_the_security_headers(server: Server) -> None:
    for path in ("/healthz", "/readyz", "/nothing", STATUS, "/outputs/a/b", "/api/v1/references"):
        check_headers((await server.call("GET", path))[2])
        check_headers((await ask_with(server, {}, path))[2])


MALFORMED = {
    "another protocol": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n",
    "half a request line": b"GET\r\n\r\n",
    "too long a header": b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Big: " + b"a" * 20_000 + b"\r\n\r\n",
    "an unknown version": b"GET /healthz HTTP/9.9\r\nHost: x\r\n\r\n",
    "NUL in a header": b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: \x00\r\n\r\n",
    "two lengths": b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "length and chunks": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
    "no host": b"GET /healthz HTTP/1.1\r\n\r\n",
    "a broken URL": b"GET http://[::1 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a byte that is not ASCII": b"GET /api/v1/status/\xff HTTP/1.1\r\nHost: x\r\n" + AUTH + b"\r\n",
    "broken chunks": b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nab\r\n",
}


async def test_what_is_not_http_gets_the_json_error(server: Server) -> None:
    for name, sent in MALFORMED.items():
        status, body, headers = await ask_raw(server.url, sent)
        assert (status, body["code"], body["error"]) == (400, "invalid_request", "Invalid request"), name
        assert headers["Content-Type"] == "application/json; charset=utf-8"
        assert headers["Server"] == "umrgen"
        assert headers["X-Request-ID"]


async def test_the_answer_to_what_is_not_http_carries_the_security_headers(server: Server) -> None:
    check_headers((await ask_raw(server.url, MALFORMED["half a request line"]))[2])


async def test_an_expectation_that_cannot_be_met_gets_a_json_error(server: Server) -> None:
    for key in (AUTH, b""):
        sent = b"POST /api/v1/generate HTTP/1.1\r\nHost: x\r\nExpect: pie\r\nContent-Length: 2\r\n" + key + b"\r\n{}"
        status, body, headers = await ask_raw(server.url, sent)
        assert 400 <= status < 500
        assert not body["success"]
        check_headers(headers)


async def start_for_early_answers(start_server: StartServer, case: str) -> tuple[Server, str, dict[str, str]]:
    """A server, a path and headers with which an endless body is answered early by `case`."""
    server = await start_server(limits={"rate_per_minute": 0 if case == "rate_limit" else 60})
    path = "/api/v1/generate" if case == "request_too_large" else "/api/v1/upload-reference"
    media_type = {"request_too_large": "application/json", "unsupported_media_type": "image/png"}.get(case)
    headers = {"Content-Type": media_type} if media_type else {}
    return server, path, headers | {"Authorization": "Bearer none" if case == "unauthorized" else BEARER}


EARLY = {"unauthorized": 401, "file_too_large": 413, "request_too_large": 413}
EARLY |= {"unsupported_media_type": 415, "rate_limit": 429}


@pytest.mark.parametrize("case", EARLY)
async def test_an_early_answer_reaches_requests(start_server: StartServer, case: str) -> None:
    server, path, headers = await start_for_early_answers(start_server, case)
    body: dict[str, Any] = {"data": LARGE} if "Content-Type" in headers else {"files": {"file": LARGE}}
    answer = await asyncio.to_thread(requests.post, server.url + path, headers=headers, timeout=30, **body)
    assert (answer.status_code, answer.json()["code"]) == (EARLY[case], case)


@pytest.mark.parametrize("case", EARLY)
async def test_an_early_answer_reaches_curl(start_server: StartServer, tmp_path: Path, case: str) -> None:
    server, path, headers = await start_for_early_answers(start_server, case)
    large = tmp_path / "large"
    large.write_bytes(LARGE)
    body = ["--data-binary", f"@{large}"] if "Content-Type" in headers else ["-F", f"file=@{large}"]
    words = [word for name, value in headers.items() for word in ("-H", f"{name}: {value}")]
    child = await asyncio.create_subprocess_exec(
        *("curl", "-sS", "-m", "30", "-H", "Expect:", *words, *body, server.url + path), stdout=asyncio.subprocess.PIPE
    )
    output, _ = await child.communicate()
    assert (child.returncode, json.loads(output)["code"]) == (0, case)


@pytest.mark.parametrize("case", EARLY)
async def test_an_early_answer_comes_before_the_body_has_ended(start_server: StartServer, case: str) -> None:
    server, path, headers = await start_for_early_answers(start_server, case)
    lines = {"Host": "x", "Content-Type": "multipart/form-data; boundary=B", **headers, "Content-Length": "1000000000"}
    head = f"POST {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    part = b'\r\n--B\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
    status, body, _ = await ask_raw(server.url, head.encode() + part + LARGE[: 11 << 20])
    assert (status, body["code"]) == (EARLY[case], case)
