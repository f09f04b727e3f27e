"""Whatever bytes arrive, the answer is the contract's, tells nothing of the server, and harms nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import json
import platform
import re
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest

from tests.api.conftest import Server, StartServer
from tests.api.test_common import AUTH, check_headers
from tests.api.test_status import accept, complete_next
from tests.conftest import ROOT, picture_bytes
from umrgen_api.app import ROUTES
from umrgen_core.keys import mint_key

QUIET_S = 0.25
ANSWER_S = 5.0
HOST = b"Host: x\r\n"
CLOSE = b"Connection: close\r\n"
JSON_TYPE = b"Content-Type: application/json\r\n"
GOOD = b'{"prompt": "a star"}'
WITHOUT_BODY = {204, 304, 412}


@dataclass
class Heard:
    """One answer as it came over the wire."""

    status: int
    headers: dict[str, str]
    body: bytes
    raw: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Conversation:
    """Every answer on one connection, and whether the server then closed it."""

    answers: list[Heard] = field(default_factory=list)
    closed: bool = False

    @property
    def statuses(self) -> list[int]:
        return [answer.status for answer in self.answers]


async def converse(url: str, sent: bytes, *, expected: int = 1, head: bool = False) -> Conversation:
    """Send `sent` on a fresh connection; its answers, until the server closes or has no more to say."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 24)
    conversation = Conversation()
    try:
        writer.write(sent)
        while True:
            patience_s = ANSWER_S if len(conversation.answers) < expected else QUIET_S
            async with asyncio.timeout(patience_s):
                conversation.answers.append(await _read_answer(reader, without_body=head))
    except asyncio.IncompleteReadError as ended:
        conversation.closed = not ended.partial  # else an answer was cut short
    except ConnectionError:
        conversation.closed = True
    except TimeoutError:
        pass
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    return conversation


async def _read_answer(reader: asyncio.StreamReader, *, without_body: bool) -> Heard:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")[:-2]
    assert re.fullmatch(r"HTTP/(0\.9|1\.[01]) \d{3} [A-Za-z ]+", first), first
    status = int(first.split()[1])
    headers = dict(line.split(": ", 1) for line in lines)
    assert len(headers) == len(lines), "a header came twice"
    if status < 200:
        return await _read_answer(reader, without_body=without_body)
    empty = without_body or status in WITHOUT_BODY
    body = b"" if empty else await reader.readexactly(int(headers["Content-Length"]))
    return Heard(status, headers, body, head + body)


def telling_words(server: Server) -> list[str]:
    """What no answer may hold: versions, paths, traces."""
    return [
        *("aiohttp", "python", "traceback", "site-packages", 'file "', "llhttp", "sqlite", "yarl", ".py"),
        *(aiohttp.__version__, platform.python_version(), str(ROOT), str(server.services.settings.storage.data_dir)),
    ]


def check_answer(server: Server, answer: Heard) -> None:
    """Hold an answer to whatever came in: no 5xx, the contract's errors, the security headers, no secrets."""
    assert answer.status < 500, answer.raw
    check_headers(answer.headers)
    if answer.headers.get("Content-Type", "").startswith(("application/json", "text/event-stream")):  # others are files
        told = answer.raw.decode("latin-1").lower()
        assert not [word for word in telling_words(server) if word.lower() in told], told
    if answer.status >= 400 and answer.body:
        assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
        if set(answer.json) == {"error"}:  # below /v1 errors have the shape of the OpenAI API
            assert set(answer.json["error"]) >= {"message", "type", "param", "code"}
            return
        assert answer.json["success"] is False
        assert all(answer.json[name] and isinstance(answer.json[name], str) for name in ("error", "code", "message"))


async def check_conversation(server: Server, sent: bytes, **options: Any) -> Conversation:
    """Say `sent`, hold every answer to the contract, and see that the next client is served."""
    conversation = await converse(server.url, sent, **options)
    for answer in conversation.answers:
        check_answer(server, answer)
    well = await converse(server.url, b"GET /healthz HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n")
    assert (well.statuses, well.closed) == ([200], True)
    return conversation


def request(target: bytes, *lines: bytes, method: bytes = b"GET", body: bytes = b"", version: bytes = b"1.1") -> bytes:
    """A request with a key that closes its connection."""
    head = b"%s %s HTTP/%s\r\n" % (method, target, version) + HOST + CLOSE + AUTH
    return head + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


@pytest.fixture
async def open_server(start_server: StartServer) -> Server:
    """Limits out of the way: what is looked at here is the form of requests."""
    limits = {"concurrent_jobs": 100_000, "queued_jobs": 100_000, "rate_per_minute": 10**6, "reads_per_minute": 10**6}
    return await start_server(limits=limits, auth={"failures_per_minute": 0})


BAD_FIRST_LINES = {
    "no bytes but line ends": b"\r\n\r\n\r\n\r\nx\r\n\r\n",
    "a word": b"hello\r\n\r\n",
    "HTTP/0.9": b"GET /nothing\r\n\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "an upgrade to HTTP/2 that is not one": b"GET / HTTP/2\r\nHost: x\r\n\r\n",
    "HTTP/1.2": b"GET /healthz HTTP/1.2\r\nHost: x\r\n\r\n",
    "HTTP/11": b"GET /healthz HTTP/11\r\nHost: x\r\n\r\n",
    "a version in small letters": b"GET /healthz http/1.1\r\nHost: x\r\n\r\n",
    "another protocol's answer": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "RTSP": b"OPTIONS rtsp://x/ RTSP/1.0\r\n\r\n",
    "TLS": bytes.fromhex("16030100c8010000c40303") + b"\x00" * 40 + b"\r\n\r\n",
    "SSH": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    "NULs": b"\x00" * 64 + b"\r\n\r\n",
    "a NUL in the method": b"G\x00T /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    "a NUL in the path": b"GET /heal\x00thz HTTP/1.1\r\nHost: x\r\n\r\n",
    "a method in small letters": b"get /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    "a method with a colon": b"GE:T /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    "a method of 20,000 letters": b"G" * 20_000 + b" / HTTP/1.1\r\nHost: x\r\n\r\n",
    "no target": b"GET  HTTP/1.1\r\nHost: x\r\n\r\n",
    "two targets": b"GET /healthz /readyz HTTP/1.1\r\nHost: x\r\n\r\n",
    "a tab between": b"GET\t/healthz\tHTTP/1.1\r\nHost: x\r\n\r\n",
    "a space before": b" GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    "a carriage return within": b"GET /heal\rthz HTTP/1.1\r\nHost: x\r\n\r\n",
    "a target without a slash": b"GET healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    "CONNECT": b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n",
    "CONNECT to a path": b"CONNECT /api/v1/generate HTTP/1.1\r\nHost: x\r\n\r\n",
    "CONNECT to nothing": b"CONNECT : HTTP/1.1\r\nHost: x\r\n\r\n",
    "an asterisk": b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET of an asterisk": b"GET * HTTP/1.1\r\nHost: x\r\n\r\n",
    "a broken IPv6 host": b"GET http://[::1/healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    "a port that is none": b"GET http://x:99999999/healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    "a scheme alone": b"GET http:// HTTP/1.1\r\nHost: x\r\n\r\n",
    "two slashes": b"GET //evil.example/healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    "a user and a password": b"GET http://a:b@x/nothing HTTP/1.1\r\nHost: x\r\n\r\n",
    "a file": b"GET file:///etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
    "script": b"GET javascript:alert(1) HTTP/1.1\r\nHost: x\r\n\r\n",
    "a line of 100,000 bytes": b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.mark.parametrize("name", BAD_FIRST_LINES)
async def test_a_first_line_that_is_none_of_ours_is_refused(server: Server, name: str) -> None:
    conversation = await check_conversation(server, BAD_FIRST_LINES[name])
    assert conversation.answers
    assert all(400 <= status < 500 for status in conversation.statuses)


def post(*lines: bytes, body: bytes) -> bytes:
    """A generate whose framing is `lines`."""
    return b"POST /api/v1/generate HTTP/1.1\r\n" + HOST + AUTH + JSON_TYPE + b"\r\n".join(lines) + b"\r\n\r\n" + body


SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked"
WHOLE_CHUNK = b"14\r\n" + GOOD + b"\r\n0\r\n\r\n"

BROKEN_FRAMING = {
    "a length and chunks": post(b"Content-Length: 20", CHUNKED, body=WHOLE_CHUNK),
    "chunks and a length": post(CHUNKED, b"Content-Length: 5", body=b"0\r\n\r\n" + SMUGGLED),
    "two lengths": post(b"Content-Length: 20", b"Content-Length: 0", body=GOOD + SMUGGLED),
    "the same length twice": post(b"Content-Length: 20", b"Content-Length: 20", body=GOOD),
    "a list of lengths": post(b"Content-Length: 20, 20", body=GOOD),
    "a negative length": post(b"Content-Length: -1", body=GOOD),
    "a length with a sign": post(b"Content-Length: +20", body=GOOD),
    "a length in hexadecimal": post(b"Content-Length: 0x14", body=GOOD),
    "a length with a point": post(b"Content-Length: 20.0", body=GOOD),
    "a length with an underscore": post(b"Content-Length: 2_0", body=GOOD),
    "a length in other digits": post("Content-Length: \u0662\u0660".encode(), body=GOOD),
    "no length": post(b"Content-Length:", body=GOOD),
    "a length beyond all numbers": post(b"Content-Length: " + b"9" * 40, body=GOOD),
    "chunks that are not last": post(b"Transfer-Encoding: chunked, identity", body=WHOLE_CHUNK),
    "chunks by another name": post(b"Transfer-Encoding: xchunked", body=WHOLE_CHUNK),
    "chunks with a vertical tab": post(b"Transfer-Encoding: \x0bchunked", body=WHOLE_CHUNK),
    "chunks of a gzip": post(b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: chunked", body=WHOLE_CHUNK),
    "chunks twice": post(CHUNKED, CHUNKED, body=WHOLE_CHUNK),
    "chunks in a header with a space": post(b"Transfer-Encoding : chunked", body=WHOLE_CHUNK),
    "chunks behind a carriage return": post(b"X-A: \rTransfer-Encoding: chunked", body=WHOLE_CHUNK),
    "a header on two lines": post(b"Content-Length: 20", b"X-A: b", b" folded", body=GOOD),
    "a first header that goes on from none": post(b" folded: 1", b"Content-Length: 20", body=GOOD),
    "a header without a colon": post(b"Content-Length: 20", b"nonsense", body=GOOD),
    "a header without a name": post(b"Content-Length: 20", b": value", body=GOOD),
    "a NUL in a value": post(b"Content-Length: 20", b"X-A: a\x00b", body=GOOD),
    "a control character in a value": post(b"Content-Length: 20", b"X-A: a\x01b", body=GOOD),
    "a control character in a name": post(b"Content-Length: 20", b"X\x01A: b", body=GOOD),
    "a chunk of no size": post(CHUNKED, body=b"\r\n\r\n"),
    "a chunk of a negative size": post(CHUNKED, body=b"-14\r\n" + GOOD + b"\r\n0\r\n\r\n"),
    "a chunk of a size in base 16 with its mark": post(CHUNKED, body=b"0x14\r\n" + GOOD + b"\r\n0\r\n\r\n"),
    "a chunk larger than any memory": post(CHUNKED, body=b"f" * 17 + b"\r\n" + GOOD),
    "a chunk longer than it says": post(CHUNKED, body=b"2\r\n" + GOOD + b"\r\n0\r\n\r\n"),
    "a line feed in a chunk's extension": post(CHUNKED, body=b"14;a\n=b\r\n" + GOOD + b"\r\n0\r\n\r\n"),
    "chunks that end in line feeds": post(CHUNKED, body=b"14\n" + GOOD + b"\n0\n\n"),
    "a NUL in a chunk's extension": post(CHUNKED, body=b"14;a=\x00\r\n" + GOOD + b"\r\n0\r\n\r\n"),
    "a trailer that is no header": post(CHUNKED, body=b"14\r\n" + GOOD + b"\r\n0\r\nnonsense\r\n\r\n"),
    "a trailer that is framing": post(CHUNKED, body=WHOLE_CHUNK[:-2] + b"Content-Length: 99\r\n\r\n"),
    "lines that end in a line feed alone": post(b"Content-Length: 20", body=GOOD).replace(b"\r\n", b"\n"),
}


@pytest.mark.parametrize("name", BROKEN_FRAMING)
async def test_a_request_with_broken_framing_is_refused_and_its_connection_closed(server: Server, name: str) -> None:
    conversation = await check_conversation(server, BROKEN_FRAMING[name])
    assert len(conversation.answers) == 1, conversation
    assert conversation.statuses[0] in (400, 415)
    assert conversation.closed
    assert await count_jobs(server) == 0


async def count_jobs(server: Server) -> int:
    row = await server.services.database.reader.one("SELECT count(*) AS n FROM jobs")
    assert row is not None
    count: int = row["n"]
    return count


SOUND_FRAMING = {
    "chunks": post(CHUNKED, CLOSE[:-2], body=WHOLE_CHUNK),
    "chunks in capitals": post(b"TRANSFER-ENCODING: CHUNKED", CLOSE[:-2], body=WHOLE_CHUNK),
    "a chunk's extension": post(CHUNKED, CLOSE[:-2], body=b'14;a=b;c="d"\r\n' + GOOD + b"\r\n0;e\r\n\r\n"),
    "a trailer": post(CHUNKED, CLOSE[:-2], body=b"14\r\n" + GOOD + b"\r\n0\r\nX-Sum: 1\r\n\r\n"),
    "chunks of a byte": post(CHUNKED, CLOSE[:-2], body=b"".join(b"1\r\n%c\r\n" % byte for byte in GOOD) + b"0\r\n\r\n"),
    "a length with zeros before": post(b"Content-Length: 00020", CLOSE[:-2], body=GOOD),
    "an empty line before": b"\r\n" + post(b"Content-Length: 20", CLOSE[:-2], body=GOOD),
}


@pytest.mark.parametrize("name", SOUND_FRAMING)
async def test_unusual_framing_that_is_sound_is_understood(server: Server, name: str) -> None:
    conversation = await check_conversation(server, SOUND_FRAMING[name])
    assert (conversation.statuses, conversation.closed) == ([202], True)


async def test_what_follows_a_whole_body_is_the_next_request_or_garbage(server: Server) -> None:
    whole = post(b"Content-Length: 20", body=GOOD)
    followed = await check_conversation(server, whole + SMUGGLED, expected=2)
    assert followed.statuses == [202, 404]
    garbage = await check_conversation(server, whole + b"\x00garbage\r\n\r\n", expected=2)
    assert (garbage.statuses, garbage.closed) == ([400], True)  # both came at once: nothing of it is believed
    assert await count_jobs(server) == 1


async def test_a_hundred_requests_at_once_are_answered_in_their_order(server: Server) -> None:
    paths = [b"/healthz" if number % 2 else b"/nothing-%d" % number for number in range(100)]
    sent = b"".join(b"GET %s HTTP/1.1\r\n" % path + HOST + b"X-Request-ID: %s\r\n\r\n" % path[1:] for path in paths)
    conversation = await check_conversation(server, sent, expected=100)
    assert conversation.statuses == [200 if path == b"/healthz" else 404 for path in paths]
    assert [answer.headers["X-Request-ID"].encode() for answer in conversation.answers] == [p[1:] for p in paths]


IDS = [
    *rb"""
    %2e%2e .. . %00 %0d%0aSet-Cookie:%20a=b %0A %ff%fe %ED%A0%80 % %zz %2 ~ %25%32%65 %2f..%2f..%2fetc%2fpasswd
    ..%5c..%5c %u002e a;b=c a?b#c '-- %27%20OR%201=1 %E2%80%AE {filename} %7Bjob_id%7D * $(id) `id` %24%7B7*7%7D
    -1 null __proto__ 0
    """.split(),
    *("ä".encode(), "\u202e".encode(), b"a" * 7_000, b"%41" * 2_000, b"ext_" + b"f" * 5_000, b"%F0%9F%92%A9" * 200),
]
TEMPLATES = (b"/api/v1/status/%s", b"/api/v1/references/%s", b"/outputs/sid_ext_gen/%s", b"/outputs/%s/x.png", b"/%s")


@pytest.mark.parametrize("template", TEMPLATES)
async def test_no_id_in_a_path_is_more_than_an_id(open_server: Server, template: bytes) -> None:
    for name in IDS:
        for query in (b"", b"?session_id=%s" % name[:500]):
            method = b"DELETE" if b"references/" in template else b"GET"
            sent = request(template.replace(b"%s", name) + query, method=method)
            conversation = await check_conversation(open_server, sent)
            assert len(conversation.answers) == 1, sent
            assert 400 <= conversation.statuses[0] < 500, sent


DOT_SEGMENTS = rb"""
    /outputs/../healthz /outputs/sid_ext_gen/../../healthz /references/./../healthz /outputs/%2e%2e/healthz
    /outputs/sid_ext_gen/../../umrgen.sqlite3 /outputs/..%2f..%2fumrgen.sqlite3 //healthz /./healthz /healthz/
    /healthz/.. /healthz%2f /HEALTHZ /healthz;x /api/v1/../../healthz /api/v1//generate /outputs/a/b/c
    /api/v1/references/../status/x /outputs\..\healthz /%68ealthz/x /references//x
""".split()


@pytest.mark.parametrize("target", DOT_SEGMENTS)
async def test_dot_segments_reach_nothing_beyond_the_routes(server: Server, target: bytes) -> None:
    answer = (await check_conversation(server, request(target))).answers[0]
    assert answer.status in (400, 403, 404, 405) or answer.json == {"success": True, "status": "ok"}


async def test_without_a_key_no_spelling_of_the_api_gets_past_the_door(open_server: Server) -> None:
    spellings = rb"""
        /api/v1/references /%61pi/v1/references /api/%761/references /api/v1%2freferences /api//v1/references
        /./api/v1/references /x/../api/v1/references //api/v1/references http://x/api/v1/references
        /api/v1/references/ /api/v1/./references /api/v1/references?a /API/v1/references /api/v1/%2e/references
        /api/v1;/references /api\v1\references /healthz/../api/v1/references /api/v1/references%00
    """
    for target in spellings.split():
        sent = b"GET %s HTTP/1.1\r\n" % target + HOST + CLOSE + b"\r\n"
        conversation = await check_conversation(open_server, sent)
        assert conversation.statuses[0] in (400, 401, 403, 404), target
        assert b'"references"' not in conversation.answers[0].body


HEADS = {
    "two keys": [AUTH[:-2], b"Authorization: Bearer other"],
    "the same key twice": [AUTH[:-2]],
    "a header of 8 KB": [b"X-A: " + b"a" * 8_000],
    "a header of 9 KB": [b"X-A: " + b"a" * 9_000],
    "a header of 1 MB": [b"X-A: " + b"a" * 1_000_000],
    "a name of 1 MB": [b"X" * 1_000_000 + b": a"],
    "100 headers": [b"X-%d: a" % number for number in range(100)],
    "1000 headers": [b"X-%d: a" % number for number in range(1000)],
    "100,000 headers": [b"X: a"] * 100_000,
    "an expectation": [b"Expect: 100-continue"],
    "an expectation of pie": [b"Expect: pie"],
    "an upgrade to WebSocket": [
        *(b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Version: 13"),
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ],
    "an upgrade to HTTP/2": [b"Upgrade: h2c", b"Connection: Upgrade, HTTP2-Settings", b"HTTP2-Settings: AAMAAABk"],
    "a connection of everything": [b"Connection: keep-alive, close, upgrade, authorization"],
    "cookies that are none": [b"Cookie: " + b"; ".join(b"%d=\x01" % number for number in range(600))],
    "a date of no calendar": [b"If-Modified-Since: Thu, 99 Foo 99999 99:99:99 GMT"],
    "languages without end": [b"Accept-Language: " + b",".join([b"en;q=0.1"] * 800)],
    "another method by header": [b"X-HTTP-Method-Override: DELETE", b"X-Original-URL: /api/v1/references"],
    "an address that is none": [b"X-Forwarded-For: \xff, ,,::::, 999.1.1.1"],
    "bytes that are not UTF-8": [b"User-Agent: \xff\xfe\xfd"],
    "a Host that is none": [b"X-Forwarded-Host: a b\tc"],
}


@pytest.mark.parametrize("name", HEADS)
async def test_no_head_breaks_the_server(open_server: Server, name: str) -> None:
    for target in (b"/healthz", b"/api/v1/references", b"/outputs/sid_ext_gen/x"):
        conversation = await check_conversation(open_server, request(target, *HEADS[name]))
        assert len(conversation.answers) == 1
        assert conversation.statuses[0] in (200, 400, 401, 403, 404), name


REFUSED = defaultdict(lambda: 400, {b"CONNECT": 404})
METHODS = b"HEAD OPTIONS TRACE GET POST PUT PATCH DELETE PROPFIND PURGE CONNECT".split()


def places() -> Iterator[bytes]:
    """A path of every route."""
    for path in dict.fromkeys(path for _, path, _ in ROUTES):
        yield re.sub(r"\{\w+\}", "x", path).encode()


@pytest.mark.parametrize("method", METHODS)
async def test_every_method_gets_an_answer_at_every_route(open_server: Server, method: bytes) -> None:
    taken = {(m.encode(), re.sub(r"\{\w+\}", "x", p).encode()) for m, p, _ in ROUTES}
    taken |= {(b"HEAD", path) for m, path in taken if m == b"GET"}
    for path in places():
        conversation = await converse(open_server.url, request(path, method=method), head=method == b"HEAD")
        assert len(conversation.answers) == 1, path
        answer = conversation.answers[0]
        if path == b"/readyz" and (method, path) in taken:
            check_headers(answer.headers)  # 503: no worker lives here
            continue
        check_answer(open_server, answer)
        if (method, path) not in taken:
            assert (answer.status, bool(answer.headers.get("Allow"))) in {(405, True), (REFUSED[method], False)}, method
        if method == b"TRACE":
            assert AUTH[:-2] not in answer.raw


RANGES = [
    *b"""
    bytes=0-0 bytes=-1 bytes=0- bytes=-0 bytes=5-2 bytes=- bytes= bytes items=0-1 bytes=0-999999999999999999999999
    bytes=99999999999999999999- bytes=-99999999999999999999 bytes=a-b bytes=0-0,1-1 bytes=--1 bytes=1-2-3 BYTES=0-1
    bytes=0x0-0x5 bytes=+0-+5 bytes=0-5;q=1 bytes=0_0-0_5 bytes=1e1-
    """.split(),
    *(b"", b"\xff", b"bytes= 0 - 5 ", "bytes=\u0660-\u0665".encode(), b"bytes=" + b",".join([b"0-"] * 2_000)),
]
CONDITIONS = [
    *rb"""If-None-Match: *
If-None-Match:
If-None-Match: W/
If-None-Match: "
If-Match: "a"
If-Match: *
If-Match: ,,,
If-Range: *
If-Range: "a"
If-Range: Thu, 01 Jan 1970 00:00:00 GMT
If-Modified-Since: x
If-Modified-Since: Thu, 31 Dec 9999 23:59:59 GMT
If-Modified-Since: Thu, 01 Jan 99999 00:00:00 GMT
If-Modified-Since: Mon, 01 Jan 0001 00:00:00 +2359
If-Unmodified-Since: Thu, 01 Jan 1970 00:00:00 GMT
If-Unmodified-Since: Mon, 01 Jan 0001 00:00:00 -2359
If-Unmodified-Since: 0""".split(b"\n"),
    *(b"If-None-Match: \xff", b"If-Range: \xff", b"If-None-Match: " + b",".join([b'"a"'] * 1_900)),
]


async def test_no_range_and_no_condition_breaks_the_files(open_server: Server) -> None:
    await accept(open_server)
    output = await complete_next(open_server)
    picture = picture_bytes()
    target = f"/outputs/sid_ext_gen/{output.filename}?session_id=sid_ext_gen".encode()
    for wanted in [b"Range: " + value for value in RANGES] + CONDITIONS:
        for method in (b"GET", b"HEAD"):
            for more in ((), (b"Range: bytes=0-3",), (b"Accept-Encoding: gzip, br",)):
                sent = request(target, wanted, *more, method=method)
                conversation = await converse(open_server.url, sent, head=method == b"HEAD")
                assert len(conversation.answers) == 1, sent
                answer = conversation.answers[0]
                check_answer(open_server, answer)
                assert answer.status in (200, 206, 304, 400, 412, 416), sent
                assert answer.status not in (200, 206) or answer.body in picture, sent
    assert (await check_conversation(open_server, request(target))).answers[0].body == picture


async def test_early_hints_of_a_length_bring_nothing_to_wait_for(open_server: Server) -> None:
    for size in (b"1", b"1000000000", b"9223372036854775807"):
        sent = b"POST /nothing HTTP/1.1\r\n" + HOST + b"Content-Length: " + size + b"\r\n\r\n"
        assert (await check_conversation(open_server, sent)).statuses == [404]


async def put_own_things(server: Server, key: str) -> tuple[str, str]:
    """A job and a reference of the agent with `key`."""
    session = aiohttp.ClientSession(server.url, headers={"Authorization": f"Bearer {key}"})
    own = Server(server.app, server.url, session)
    filename: str = (await own.upload(picture_bytes()))[1]["filename"]
    job_id = await accept(own, reference_images=[filename])
    await session.close()
    return job_id, filename


HOSTS: list[tuple[bytes, bytes, list[bytes]]] = [
    (b"", b"localhost", []),
    (b"", b"evil.example", []),
    (b"", b"evil.example:99999", []),
    (b"", b"", []),
    (b"", b"a b<script>", []),
    (b"", b"127.0.0.1@evil.example/x?y#", []),
    (b"", b"x", [b"X-Forwarded-Host: evil.example", b"X-Forwarded-Proto: gopher", b"X-Forwarded-Prefix: /evil"]),
    (
        b"",
        b"x",
        [b"Forwarded: host=evil.example;proto=https", b"X-Host: evil.example", b"X-Original-Host: evil.example"],
    ),
    (b"http://evil.example", b"x", []),
    (b"https://u:p@evil.example:8", b"evil.example", []),
    (b"http://[::1]:1", b"x", []),
]


async def test_the_host_is_never_used(open_server: Server) -> None:
    """The same request with a hostile host of any kind gets the same bytes, but for an id and a time of its own."""
    key = mint_key()
    await open_server.services.agents.create_agent("bob", "sid_ext_bob", key)
    job_id, filename = await put_own_things(open_server, key)
    body = b'{"prompt": "a star", "reference_images": ["%s"]}' % filename.encode()
    requests = [
        (b"GET", f"/api/v1/status/{job_id}".encode(), b""),
        (b"GET", b"/api/v1/references", b""),
        (b"GET", f"/references/sid_ext_bob/{filename}".encode(), b""),
        (b"GET", f"/outputs/sid_ext_gen/{filename}".encode(), b""),
        (b"DELETE", f"/api/v1/references/{filename}".encode(), b""),
        (b"POST", b"/api/v1/generate", body),
        (b"POST", b"/api/v1/upload-reference", b"{}"),
        (b"GET", b"/healthz", b""),
        (b"GET", b"/nothing", b""),
        (b"PUT", b"/api/v1/generate", b""),
        (b"GET", b"/api/v1", b""),
    ]
    for method, path, content in requests:
        heard = set()
        for prefix, host, more in HOSTS:
            lines = [
                b"Host: " + host,
                b"Connection: close",
                b"X-Request-ID: mine",
                b"Authorization: Bearer " + key.encode(),
            ]
            lines += [JSON_TYPE[:-2], b"Content-Length: %d" % len(content), *more]
            sent = b"%s %s%s HTTP/1.1\r\n" % (method, prefix, path) + b"\r\n".join(lines) + b"\r\n\r\n" + content
            conversation = await check_conversation(open_server, sent)
            raw = re.sub(rb"ext_[0-9a-f-]{36}", b"ID", conversation.answers[0].raw)
            heard.add(re.sub(rb'\r\nDate: [^\r]*|"queue_position":\d+|Content-Length: \d+', b"", raw))
        assert len(heard) == 1, heard


MEDIA_TYPES = {
    "half a parameter": b"application/json;a*",
    "half a parameter of bytes": b"application/json; \xff*",
    "parameters of nothing": b"application/json" + b";" * 7_900,
    "parameters of spaces": b"application/json" + b" ;" * 3_900,
    "comments in comments": b"application/json; a=" + b"(" * 7_900,
    "comments in a row": b"application/json; a=" + b"(a)" * 2_600,
    "encoded words": b"application/json; a=" + b"=?utf-8?q?a?= " * 550,
    "a parameter in pieces": b"application/json" + b";a*0*=x" * 1_000,
    "an open quote": b'application/json; a="' + b'\\"' * 3_900,
}


@pytest.mark.parametrize("name", MEDIA_TYPES)
async def test_no_media_type_breaks_the_server_or_holds_it_up(open_server: Server, name: str) -> None:
    for path in (b"/api/v1/generate", b"/api/v1/upload-reference"):
        lines = [b"Content-Length: 20", b"Content-Type: " + MEDIA_TYPES[name]]
        began = time.process_time()
        conversation = await check_conversation(open_server, request(path, *lines, method=b"POST", body=GOOD))
        assert conversation.statuses in ([202], [400], [415])
        assert time.process_time() - began < 0.1  # all else waits for as long
