from __future__ import annotations

import asyncio

import pytest

from tests.api.conftest import Server
from umrgen_api import protocol


async def open_slow(
    server: Server, head: bytes = b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: "
) -> asyncio.StreamReader:
    host, port = server.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(head)
    reader.writer = writer  # keeps the connection open for as long as the reader lives
    return reader


async def test_five_hundred_slow_connections_do_not_stop_service(server: Server) -> None:
    slow = await asyncio.gather(*(open_slow(server) for _ in range(500)))
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
    reader = await open_slow(server, head)
    assert await asyncio.wait_for(reader.read(), 5) == b""


async def test_a_slow_body_is_not_cut_off_by_the_timeout_of_the_head(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEAD_TIMEOUT_S", 0.2)
    key = server.session.headers["Authorization"].encode()
    head = b"POST /api/v1/generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 21\r\n"
    reader = await open_slow(server, head + b"Authorization: " + key + b"\r\n\r\n")
    for byte in b'{"prompt": "a circle"':
        reader.writer.write(bytes([byte]))
        await asyncio.sleep(0.03)
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n"), 5)
    assert answer == b"HTTP/1.1 400 Bad Request\r\n"  # the JSON lacks its end: it was read to its last byte
