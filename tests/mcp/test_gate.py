"""What strangers can make the MCP server hold, by the bytes they send."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator

import httpx2
import pytest
from mcp.server.mcpserver.exceptions import ToolError
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.conftest import DEVELOPMENT_KEY
from tests.e2e.conftest import Stack
from umrgen_client import AsyncClient, Retry
from umrgen_mcp import protocol
from umrgen_mcp.__main__ import Server, configure
from umrgen_mcp.callers import Callers
from umrgen_mcp.server import build_http_app, build_server
from umrgen_mcp.tools import Tools, tool_errors

NOBODY = "http://127.0.0.1:1"
HEAD = (
    "POST /mcp HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAccept: application/json, text/event-stream\r\n"
)
STRANGER = HEAD + "Authorization: Bearer nonsense\r\n"
CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}


@contextlib.asynccontextmanager
async def serving(app: ASGIApp) -> AsyncIterator[int]:
    """The app as umrgen-mcp serves it, in this process; its port."""
    server = Server(configure(app))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        task = asyncio.create_task(server.serve(sockets=[listener]))
        async with asyncio.timeout(10):
            while not server.started:  # noqa: ASYNC110 - what is watched is outside
                await asyncio.sleep(0.01)
        try:
            yield listener.getsockname()[1]
        finally:
            server.stop()
            server.force_exit = True
            await asyncio.wait_for(task, 10)


@contextlib.asynccontextmanager
async def serving_mcp(api_url: str = NOBODY) -> AsyncIterator[int]:
    async with httpx2.AsyncClient(trust_env=False) as http:
        callers = Callers(api_url, http)
        async with serving(build_http_app(build_server(Tools(callers, "")), callers)) as port:
            yield port


@contextlib.asynccontextmanager
async def connection(port: int, sent: str = "") -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent.encode())
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await asyncio.wait_for(writer.wait_closed(), 10)


async def read_head(reader: asyncio.StreamReader) -> str:
    async with asyncio.timeout(10):
        return (await reader.readuntil(b"\r\n\r\n")).decode()


async def read_to_the_end(reader: asyncio.StreamReader) -> bytes:
    """Until the server has closed; a reset is an end too."""
    async with asyncio.timeout(10):
        try:
            return await reader.read()
        except ConnectionError:
            return b""


async def stays_open(reader: asyncio.StreamReader, seconds: float) -> bool:
    try:
        await asyncio.wait_for(reader.read(1), seconds)
    except TimeoutError:
        return True
    return False


@pytest.mark.parametrize(
    "length",
    [
        "Content-Length: 13000000",
        "Content-Length: 00000000013000000",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked",
    ],
)
async def test_no_way_to_write_a_length_gets_a_large_body_past_the_gate(length: str) -> None:
    async with serving_mcp() as port, connection(port, f"{STRANGER}{length}\r\n\r\n") as (reader, _):
        assert (await read_head(reader)).startswith("HTTP/1.1 503 ")


async def test_a_small_body_goes_through_without_a_question() -> None:
    async with serving_mcp() as port, httpx2.AsyncClient(trust_env=False) as http:
        headers = {"Authorization": "Bearer nonsense", "Accept": "application/json, text/event-stream"}
        assert (await http.post(f"http://127.0.0.1:{port}/mcp", json=CALL, headers=headers)).status_code == 200


async def test_strangers_do_not_learn_where_the_service_is() -> None:
    async with serving_mcp() as port, httpx2.AsyncClient(trust_env=False) as http:
        headers = {"Authorization": "Bearer nonsense"}
        answer = await http.post(f"http://127.0.0.1:{port}/mcp", content=b"x" * 100_000, headers=headers)
    assert (answer.status_code, "does not answer" in answer.json()["error"]) == (503, True)
    assert "127.0.0.1" not in answer.text


@pytest.mark.parametrize(("own_key", "told"), [("", False), ("umr_mine", True)])
async def test_a_tool_names_the_service_only_to_the_one_who_configured_it(own_key: str, told: bool) -> None:
    async with httpx2.AsyncClient(trust_env=False) as http:
        client = AsyncClient(NOBODY, "umr_any", retry=Retry(patience_s=0, outage_s=0), http=http)
        with pytest.raises(ToolError, match="unreachable") as refused, tool_errors(Callers(NOBODY, http, own_key)):
            await client.models()
    assert (NOBODY in str(refused.value)) == told


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT", "HEAD", "OPTIONS"])
async def test_there_is_no_stream_to_hold_open(method: str) -> None:
    async with serving_mcp() as port, httpx2.AsyncClient(trust_env=False) as http:
        headers = {"Authorization": "Bearer nonsense", "Accept": "text/event-stream"}
        answer = await http.request(method, f"http://127.0.0.1:{port}/mcp", headers=headers)
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")


@pytest.mark.parametrize(
    "sent",
    [
        "",
        HEAD,
        f"{STRANGER}Content-Length: 100\r\n\r\n" + "{",
        f"{STRANGER}Content-Length: 13000000\r\n\r\n" + "{",
        f"{STRANGER}Transfer-Encoding: chunked\r\n\r\nfffff\r\n",
        "GET /mcp HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n",
        "GET /mcp HTTP/1.1\r\nHost: x\r\n\r\nGET /mcp HTTP/1.1\r\nHost:",
    ],
    ids=["nothing", "half a head", "half a small body", "a large body", "chunks", "a body of GET", "a second head"],
)
async def test_who_takes_too_long_is_cut_off_however_they_drip(sent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_TIMEOUT_S", 0.3)
    async with serving_mcp() as port, connection(port, sent) as (reader, writer):
        ended = asyncio.create_task(read_to_the_end(reader))
        if sent:
            with contextlib.suppress(ConnectionError):
                while not ended.done():
                    writer.write(b"1")
                    await asyncio.wait({ended}, timeout=0.05)
        assert b"HTTP/1.1 400 " not in await ended  # the clock has ended it, and not the parser


async def test_connections_that_were_silent_leave_room_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_TIMEOUT_S", 1.0)
    monkeypatch.setattr("umrgen_mcp.__main__.MAX_CALLS", 5)
    async with serving_mcp() as port, contextlib.AsyncExitStack() as stack:
        held = [await stack.enter_async_context(connection(port)) for _ in range(5)]
        ask = f"{STRANGER}Content-Length: 2\r\n\r\n" + "{}"
        async with connection(port, ask) as (reader, _):
            assert (await read_head(reader)).startswith("HTTP/1.1 503 ")
        for reader, _ in held:
            await read_to_the_end(reader)
        async with connection(port, ask) as (reader, _):
            assert (await read_head(reader)).startswith("HTTP/1.1 400 ")


async def test_a_large_body_of_a_known_key_has_the_longer_time(service: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_TIMEOUT_S", 0.3)
    body = json.dumps({**CALL, "padding": "x" * 100_000})
    head = f"{HEAD}Authorization: Bearer {DEVELOPMENT_KEY}\r\nContent-Length: {len(body)}\r\n\r\n"
    async with serving_mcp(service.url) as port, connection(port, head + body[:10]) as (reader, writer):
        assert await stays_open(reader, 1.0)
        writer.write(body[10:].encode())
        assert (await read_head(reader)).startswith("HTTP/1.1 200 ")


async def test_a_body_that_never_ends_is_cut_off_for_a_known_key_too(
    service: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "BODY_TIMEOUT_S", 0.3)
    head = f"{HEAD}Authorization: Bearer {DEVELOPMENT_KEY}\r\nContent-Length: 100000\r\n\r\n" + "{"
    async with serving_mcp(service.url) as port, connection(port, head) as (reader, _):
        await read_to_the_end(reader)


async def test_an_answer_may_take_longer_than_a_question(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_TIMEOUT_S", 0.2)
    asked, ready = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        while (await receive())["more_body"]:
            pass
        asked.set()
        await ready.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    async with serving(app) as port, connection(port, f"{HEAD}Content-Length: 2\r\n\r\n" + "{}") as (reader, _):
        await asyncio.wait_for(asked.wait(), 10)
        assert await stays_open(reader, 0.6)
        ready.set()
        assert (await read_head(reader)).startswith("HTTP/1.1 200 ")
        assert await read_to_the_end(reader) == b""


async def test_who_reads_nothing_of_an_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "UNREAD_TIMEOUT_S", 0.5)
    gone = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        while (await receive())["more_body"]:
            pass
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"40000000")]})
        await send({"type": "http.response.body", "body": bytes(40_000_000), "more_body": True})
        assert (await receive())["type"] == "http.disconnect"
        gone.set()

    async with serving(app) as port, connection(port) as (reader, writer):
        writer.transport.pause_reading()
        writer.write(f"{HEAD}Content-Length: 2\r\n\r\n".encode() + b"{}")
        await asyncio.wait_for(gone.wait(), 10)
        writer.transport.abort()
        reader.feed_eof()
