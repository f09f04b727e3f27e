"""Security advisories of 2025 and 2026 about aiohttp's server, each with a test that this service holds.

Against the real process, with Python's assertions off (PYTHONOPTIMIZE), since one of them hung on that. Advisories
about aiohttp's client, its cookie jar, WebSockets beyond the upgrade, and Windows are left out: none is used here.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from aiohttp import http_parser

from tests.api.test_common import AUTH
from tests.api.test_malformed_http import CHUNKED, CLOSE, GOOD, HOST, Conversation, converse, post
from tests.conftest import ROOT, make_settings
from umrgen_cli.processes import Daemon, running, start_daemon

MEGABYTE = 1_000_000
ANSWERED_S = 3.0
"""A neighbour's request waits no longer than this; the bad requests below would take many times as long."""


@dataclass
class Service:
    """A web tier in a process of its own."""

    daemon: Daemon
    url: str

    @property
    def process(self) -> psutil.Process:
        return psutil.Process(self.daemon.process.pid)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("advisories")
    make_settings(folder / "data")
    environment = {
        "UMRGEN_STORAGE__DATA_DIR": str(folder / "data"),
        "UMRGEN_STORAGE__BALLAST_BYTES": "0",
        "UMRGEN_API__PORT": "0",
        "UMRGEN_LIMITS__CONCURRENT_JOBS": "1000",
        "UMRGEN_LIMITS__RATE_PER_MINUTE": "100000",
        "PYTHONOPTIMIZE": "1",
    }
    daemon = start_daemon("umrgen_api", ROOT / "config.toml", folder / "out", environment)
    with running(daemon):
        yield Service(daemon, f"http://127.0.0.1:{daemon.wait_for_event('listening', 60)['port']}")


@contextlib.asynccontextmanager
async def unharmed(service: Service, grown_megabytes: int = 40) -> AsyncIterator[None]:
    """Neighbours are served all the while, and afterwards the process is hardly larger than before."""
    before, waits = service.process.memory_info().rss, []

    async def ask_again() -> None:
        while True:
            began = time.monotonic()
            answered = await converse(service.url, b"GET /healthz HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n")
            assert answered.statuses == [200]
            waits.append(time.monotonic() - began)

    neighbour = asyncio.create_task(ask_again())
    yield
    neighbour.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await neighbour
    assert max(waits, default=0) < ANSWERED_S
    assert service.process.memory_info().rss - before < grown_megabytes * MEGABYTE
    service.daemon.require_alive()


async def say(service: Service, sent: bytes, expected: int = 1) -> Conversation:
    return await converse(service.url, sent, expected=expected)


async def pour(service: Service, pieces: Iterator[bytes]) -> int:
    """Send pieces until the server has had enough; the bytes that it took."""
    host, _, port = service.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    taken = 0
    with contextlib.suppress(ConnectionError, TimeoutError):
        for piece in pieces:
            writer.write(piece)
            async with asyncio.timeout(2):
                await writer.drain()
            taken += len(piece)
            if reader.at_eof():
                break
    writer.transport.abort()
    return taken


def test_the_parser_in_use_is_the_one_in_c() -> None:
    """CVE-2025-53643, CVE-2025-69224 and CVE-2026-111750 are about the parser in Python, which then serves nobody."""
    assert http_parser.HttpRequestParser is not http_parser.HttpRequestParserPy


SMUGGLED = b"GET /smuggled HTTP/1.1\r\n" + HOST + b"\r\n"


async def test_trailers_are_part_of_their_request(service: Service) -> None:
    """CVE-2025-53643: trailers that were not parsed became the next request."""
    body = b"14\r\n" + GOOD + b"\r\n0\r\nX-Sum: 1\r\nX-Other: 2\r\n\r\n"
    assert (await say(service, post(CHUNKED, body=body) + SMUGGLED, 2)).statuses == [202, 404]


@pytest.mark.parametrize("encoding", ["chun\u212aed", "\uff43hunked", "chunke\u0501"])
async def test_letters_that_only_look_like_chunked_are_refused(service: Service, encoding: str) -> None:
    """CVE-2025-69224: a letter that is lowered to an ASCII one made a header mean what no proxy read in it."""
    sent = post(b"Transfer-Encoding: " + encoding.encode(), body=b"0\r\n\r\n" + SMUGGLED)
    conversation = await say(service, sent)
    assert (conversation.statuses, conversation.closed) == ([400], True)


ZEROS = gzip.compress(bytes(300 * MEGABYTE), 9)
EMPTY_MEMBERS = gzip.compress(b"") * 3_000


@pytest.mark.parametrize("path", [b"/api/v1/generate", b"/api/v1/upload-reference", b"/healthz", b"/nothing"])
@pytest.mark.parametrize("body", [ZEROS, EMPTY_MEMBERS], ids=["a bomb", "empty members"])
async def test_no_body_is_ever_decompressed(service: Service, path: bytes, body: bytes) -> None:
    """CVE-2025-69223 and CVE-2026-54278 (zip bombs, read or drained), GHSA-h4cc-hm5h-fmm9 (thousands of members)."""
    async with unharmed(service):
        for encoding in (b"gzip", b"deflate", b"br", b"zstd"):
            lines = [CLOSE[:-2], b"Content-Encoding: " + encoding, b"Content-Length: %d" % len(body)]
            sent = post(*lines, body=body).replace(b"/api/v1/generate", path, 1)
            conversation = await say(service, sent)
            assert conversation.statuses in ([415], [405], [404])


async def test_only_ascii_digits_make_a_range(service: Service) -> None:
    """CVE-2025-69225: digits of other scripts were numbers in Range."""
    head = b"GET /outputs/sid_ext_gen/x?session_id=sid_ext_gen HTTP/1.1\r\n" + HOST + CLOSE
    for value in ("\u0660-\u0665", "\uff10-\uff15", "\u096a-"):
        assert (await say(service, head + b"Range: bytes=" + value.encode() + b"\r\n\r\n")).statuses == [404]


async def test_no_path_tells_what_is_on_the_disk(service: Service, tmp_path: Path) -> None:
    """CVE-2025-69226: a path of static files told by its status whether another file was there."""
    there = tmp_path / "there"
    there.write_text("secret")
    for prefix in ("/outputs/sid_ext_gen", "/references/sid_ext_gen"):
        for form in ("//{}", "/..%2f..%2f..{}", "/%2e%2e/%2e%2e{}", "/{}"):
            told = set()
            for file in (there, tmp_path / "miss."):
                path = prefix + form.format(str(file).replace("/", "%2f"))
                sent = f"GET {path}?session_id=sid_ext_gen HTTP/1.1\r\n".encode() + HOST + CLOSE + b"\r\n"
                conversation = await say(service, sent)
                told.add((conversation.statuses[0], conversation.answers[0].body))
            assert len(told) == 1


PART = b'--B\r\nContent-Disposition: form-data; name="x"\r\n\r\n'
FORM = b"Content-Type: multipart/form-data; boundary=B\r\n"


def upload(*lines: bytes, body: bytes = b"") -> bytes:
    head = b"POST /api/v1/upload-reference HTTP/1.1\r\n" + HOST + CLOSE + AUTH + FORM
    return head + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


@pytest.mark.parametrize("body", [PART, PART + b"\r\n--B", b"--B\r\n\r\n", PART + b"x\r\n--B\r\n"])
async def test_a_form_that_breaks_off_ends_without_assertions_too(service: Service, body: bytes) -> None:
    """CVE-2025-69227: with assertions off the reading of such a form went round for ever."""
    async with unharmed(service):
        assert (await say(service, upload(b"Content-Length: %d" % len(body), body=body))).statuses == [400]


async def test_fields_of_a_form_are_counted_together_and_never_kept(service: Service) -> None:
    """CVE-2025-69228 and CVE-2026-34517: the cap was on each field, or looked at when the field was in memory."""
    for body in ((PART + b"x" * 60_000 + b"\r\n") * 12 + b"--B--\r\n", PART + b"x" * 9 * MEGABYTE + b"\r\n--B--\r\n"):
        async with unharmed(service):
            assert (await say(service, upload(b"Content-Length: %d" % len(body), body=body))).statuses == [400]


async def test_chunks_of_a_byte_stall_nobody(service: Service) -> None:
    """CVE-2025-69229: a body in very many chunks took its time from everybody."""
    chunks = b"1\r\nx\r\n" * 1_000_000 + b"0\r\n\r\n"
    async with unharmed(service):
        assert (await say(service, upload(CHUNKED, body=chunks))).statuses == [400]
        assert (await say(service, post(CHUNKED, CLOSE[:-2], body=chunks))).statuses == [413]


async def test_cookies_are_not_read_and_fill_no_log(service: Service) -> None:
    """CVE-2025-69230: each broken cookie was a warning in the log."""
    before = len(service.daemon.log.read_bytes().splitlines())
    cookies = b"; ".join(b"\x01%d=\x02" % number for number in range(800)).replace(b"\x01", b"(").replace(b"\x02", b",")
    sent = b"GET /healthz HTTP/1.1\r\n" + HOST + CLOSE + b"Cookie: " + cookies + b"\r\n\r\n"
    assert (await say(service, sent)).statuses == [200]
    assert len(service.daemon.log.read_bytes().splitlines()) - before <= 2


def repeat(piece: bytes, megabytes: int = 200) -> Iterator[bytes]:
    piece *= 65_536 // len(piece) + 1
    return (piece for _ in range(megabytes * MEGABYTE // len(piece)))


def begin(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


ENDLESS = {
    "trailers": (post(CHUNKED, body=b"14\r\n" + GOOD + b"\r\n0\r\n"), b"X-Trailer: y\r\n"),
    "one trailer": (post(CHUNKED, body=b"14\r\n" + GOOD + b"\r\n0\r\nX: "), b"y"),
    "headers": (b"GET /healthz HTTP/1.1\r\n" + HOST, b"X-Header: y\r\n"),
    "one header": (b"GET /healthz HTTP/1.1\r\n" + HOST + b"X: ", b"y"),
    "one name of a header": (b"GET /healthz HTTP/1.1\r\n" + HOST, b"X"),
    "the target": (b"GET /", b"y"),
    "the method": (b"G", b"G"),
    "a chunk's extension": (post(CHUNKED, body=b"14;"), b"y"),
    "empty lines": (b"", b"\r\n"),
}
THROWN_AWAY = {"a chunk's extension", "empty lines"}
"""Read without being kept, until the time limit of the head or of the body is over."""


@pytest.mark.parametrize("name", ENDLESS)
async def test_nothing_before_or_behind_a_body_grows_without_end(service: Service, name: str) -> None:
    """CVE-2026-22815 (trailers without a cap) and CVE-2026-54277 (a line's cap, passed by sending it in pieces)."""
    async with unharmed(service):
        taken = await pour(service, begin(ENDLESS[name][0], repeat(ENDLESS[name][1])))
    assert taken < 30 * MEGABYTE or name in THROWN_AWAY  # the kernel's buffers take some of it


async def test_a_line_in_small_pieces_has_the_same_cap(service: Service) -> None:
    """CVE-2026-54277, with a piece to a segment."""
    pieces = begin(b"GET /", (b"y" * 900 for _ in range(20_000)))
    async with unharmed(service):
        assert await pour(service, pieces) < 20_000 * 900


async def test_a_second_host_is_refused(service: Service) -> None:
    """CVE-2026-34525: two Host headers, of which a proxy may have read the other."""
    sent = b"GET /healthz HTTP/1.1\r\n" + HOST + b"Host: other\r\n" + CLOSE + b"\r\n"
    assert (await say(service, sent)).statuses == [400]


async def test_requests_in_a_row_wait_in_the_kernel_and_not_in_memory(service: Service) -> None:
    """CVE-2026-54273: pipelined requests were queued without limit, also while nobody read the answers."""
    one = b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n"
    async with unharmed(service):
        assert await pour(service, repeat(one)) < 60 * MEGABYTE


@pytest.mark.parametrize("length", [True, False], ids=["length", "chunks"])
async def test_the_body_of_an_upgrade_is_not_the_next_request(service: Service, length: bool) -> None:
    """CVE-2026-69243: behind an upgrade to WebSocket the body was read as a request of its own."""
    body = SMUGGLED if length else b"%x\r\n" % len(SMUGGLED) + SMUGGLED + b"\r\n0\r\n\r\n"
    framing = b"Content-Length: %d\r\n" % len(body) if length else CHUNKED + b"\r\n"
    upgrade = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    upgrade += b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    for path in (b"/healthz", b"/api/v1/references", b"/nothing"):
        sent = b"GET " + path + b" HTTP/1.1\r\n" + HOST + AUTH + upgrade + framing + b"\r\n" + body
        conversation = await say(service, sent)
        assert len(conversation.answers) == 1, conversation
        assert conversation.statuses[0] in (200, 400, 404)


async def test_clients_that_leave_in_the_midst_leave_no_file_open(service: Service) -> None:
    """CVE-2026-54280: a payload was not closed when its client had gone."""
    body = PART.replace(b'"x"', b'"file"') + b"x" * 50_000
    for _ in range(50):
        await pour(service, iter([upload(b"Content-Length: 9000000", body=body)]))
    deadline = time.monotonic() + 10
    while list_open(service) and time.monotonic() < deadline:  # noqa: ASYNC110 - nothing tells
        await asyncio.sleep(0.05)
    assert list_open(service) == []


def list_open(service: Service) -> list[str]:
    """Files of the file store that the process has open."""
    return [file.path for file in service.process.open_files() if "/files/" in file.path]
