"""Clients that send or read as slowly as they can: each is cut off in time, and nobody else waits for them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from aiohttp import web

from tests.api.conftest import Server, StartServer
from tests.api.test_common import AUTH
from tests.api.test_status import TIMINGS, accept, claim
from tests.conftest import FakeClock, make_settings
from umrgen_api import middleware, protocol
from umrgen_api.app import build_app
from umrgen_core.files import Shelf
from umrgen_core.job_ends import NewOutput
from umrgen_core.names import new_output_filename, output_disk_name

DRIP_S = 0.03
JSON_HEAD = b"POST /api/v1/generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 21\r\n"


async def open_slow(url: str, head: bytes = b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ") -> asyncio.StreamReader:
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(head)
    reader.writer = writer  # keeps the connection open for as long as the reader lives
    return reader


@contextlib.asynccontextmanager
async def dripping(reader: asyncio.StreamReader) -> AsyncIterator[None]:
    """A byte again and again, for as long as anybody takes it."""

    async def drip() -> None:
        with contextlib.suppress(ConnectionError):
            while not reader.writer.is_closing():
                reader.writer.write(b"x")
                await asyncio.sleep(DRIP_S)

    task = asyncio.create_task(drip())
    yield
    task.cancel()
    reader.writer.close()
    with contextlib.suppress(asyncio.CancelledError, ConnectionError):
        await task


async def read_to_the_end(reader: asyncio.StreamReader, within_s: float = 5) -> bytes:
    """Everything until the server has closed; a reset is an end too."""
    heard = b""
    async with asyncio.timeout(within_s):
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(65_536):
                heard += piece
    return heard


async def test_five_hundred_slow_connections_do_not_stop_service(server: Server) -> None:
    slow = await asyncio.gather(*(open_slow(server.url) for _ in range(500)))
    status, _, _ = await asyncio.wait_for(server.call("GET", "/api/v1/references"), 5)
    assert status == 200
    assert (await server.generate())[0] == 202
    for reader in slow:
        reader.writer.close()


@pytest.mark.parametrize("head", [b"", b"GET /healthz HTTP/1.1\r\nX-Slow: "])
async def test_a_connection_without_a_whole_request_head_is_closed_in_time(
    server: Server, monkeypatch: pytest.MonkeyPatch, head: bytes
) -> None:
    monkeypatch.setattr(protocol, "HEAD_TIMEOUT_S", 0.2)
    reader = await open_slow(server.url, head)
    assert await read_to_the_end(reader) == b""


async def test_a_byte_now_and_then_wins_no_time_for_a_head(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_TIMEOUT_S", 0.3)
    reader = await open_slow(server.url)
    async with dripping(reader):
        assert await read_to_the_end(reader) == b""


async def test_a_slow_body_is_not_cut_off_by_the_timeout_of_the_head(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEAD_TIMEOUT_S", 0.2)
    reader = await open_slow(server.url, JSON_HEAD + AUTH + b"\r\n")
    for byte in b'{"prompt": "a circle"':
        reader.writer.write(bytes([byte]))
        await asyncio.sleep(DRIP_S)
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n"), 5)
    assert answer == b"HTTP/1.1 400 Bad Request\r\n"  # the JSON lacks its end: it was read to its last byte


@pytest.mark.parametrize("path", ["/api/v1/generate", "/api/v1/upload-reference"])
async def test_a_byte_now_and_then_wins_no_time_for_a_body(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(middleware, "DRAIN_S", 0.2)
    server = await start_server(api={"body_timeout_s": 0.3})
    head = JSON_HEAD.replace(b"21", b"60000").replace(b"/api/v1/generate", path.encode())
    if path != "/api/v1/generate":
        head = head.replace(b"application/json", b"multipart/form-data; boundary=B")
    reader = await open_slow(server.url, head + AUTH + b"\r\n")
    async with dripping(reader):
        assert b" 408 " in (await read_to_the_end(reader)).partition(b"\r\n")[0]


@pytest.mark.parametrize("key", [b"", AUTH], ids=["no key", "no route"])
async def test_a_body_that_nobody_wants_is_not_waited_for_without_end(
    server: Server, monkeypatch: pytest.MonkeyPatch, key: bytes
) -> None:
    monkeypatch.setattr(middleware, "DRAIN_S", 0.3)
    reader = await open_slow(
        server.url, JSON_HEAD.replace(b"21", b"60000").replace(b"generate", b"none") + key + b"\r\n"
    )
    async with dripping(reader):
        answer = await read_to_the_end(reader)
    assert answer.startswith(b"HTTP/1.1 404" if key else b"HTTP/1.1 401")


@pytest.fixture
async def impatient(tmp_path: Path, clock: FakeClock) -> AsyncIterator[str]:
    """The URL of a server that keeps an idle connection for 0.3 s."""
    runner = protocol.Runner(
        build_app(make_settings(tmp_path / "data"), clock), access_log=None, shutdown_timeout=1, keepalive_timeout=0.3
    )
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest.mark.parametrize("more", [b"", b"GET /healthz HTTP/1.1\r\nX-Slow: "], ids=["idle", "half a head"])
async def test_a_connection_that_was_answered_once_is_not_kept_without_end(impatient: str, more: bytes) -> None:
    reader = await open_slow(impatient, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" + more)
    async with dripping(reader) if more else contextlib.nullcontext():
        heard = await read_to_the_end(reader)
    assert heard.startswith(b"HTTP/1.1 200 OK\r\n")
    assert heard.count(b"HTTP/1.1") == 1


async def put_large_output(server: Server) -> str:
    """The path of an output of 40 MB, more than all buffers between the two ends hold."""
    await accept(server)
    claimed = await claim(server)
    disk_name = output_disk_name(claimed.job_id, claimed.fence)
    published = server.services.files.publish_bytes(Shelf.OUTPUTS, disk_name, bytes(40_000_000))
    output = NewOutput(new_output_filename(), disk_name, 96, 80, published.bytes, published.sha256)
    await server.services.claims.complete(claimed, output, TIMINGS, 1.0)
    return f"/outputs/sid_ext_gen/{output.filename}?session_id=sid_ext_gen"


async def test_a_client_that_reads_nothing_is_cut_off(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "UNREAD_TIMEOUT_S", 0.5, raising=False)
    path = await put_large_output(server)
    reader = await open_slow(server.url, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    reader.writer.transport.pause_reading()
    own_port = reader.writer.get_extra_info("sockname")[1]
    async with asyncio.timeout(10):
        while is_served(own_port):  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.05)
    reader.writer.transport.abort()


def is_served(port: int) -> bool:
    """Whether the server still holds its end of the connection from `port`."""
    held = psutil.Process().net_connections("tcp4")
    return any(one.status == psutil.CONN_ESTABLISHED and one.raddr and one.raddr.port == port for one in held)
