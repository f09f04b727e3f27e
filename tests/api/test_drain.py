"""How a web tier stops whose listening socket goes on without it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from tests.conftest import FakeClock, make_settings
from umrgen_api.app import build_app
from umrgen_api.protocol import Runner

REQUEST = b"GET /healthz HTTP/1.1\r\nHost: here\r\n\r\n"
WAIT_S = 10.0
LINGER_S = 0.5


@pytest.fixture
def listening() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


@pytest.fixture
async def runner(tmp_path: Path, clock: FakeClock, listening: socket.socket) -> AsyncIterator[Runner]:
    runner = Runner(build_app(make_settings(tmp_path / "data"), clock), access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.SockSite(runner, listening.dup()).start()
    yield runner
    await runner.cleanup()
    listening.close()


async def ask(client: socket.socket) -> bytes:
    """A request over a connection; everything that comes until its answer is whole, or the connection ends."""
    loop, answer = asyncio.get_running_loop(), b""
    await loop.sock_sendall(client, REQUEST)
    return await read(client, answer)


async def read(client: socket.socket, answer: bytes = b"") -> bytes:
    async with asyncio.timeout(WAIT_S):
        while not answer.endswith(b"}"):
            piece = await asyncio.get_running_loop().sock_recv(client, 4096)
            if not piece:
                break
            answer += piece
    return answer


def connect(listening: socket.socket) -> socket.socket:
    client = socket.create_connection(listening.getsockname(), timeout=WAIT_S)
    client.settimeout(0)
    return client


async def test_a_connection_taken_in_the_very_turn_of_the_stop_is_answered(
    runner: Runner, listening: socket.socket
) -> None:
    with connect(listening) as client:
        client.sendall(REQUEST)
        await asyncio.sleep(0)  # the event loop takes the connection …
        await asyncio.sleep(0)  # … and would hand it over in its next turn
        await runner.drain(WAIT_S)
        answer = await read(client)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"Connection: close\r\n" in answer


async def test_who_asks_again_is_told_to_connect_anew_and_who_is_silent_is_cut_off(
    runner: Runner, listening: socket.socket
) -> None:
    with connect(listening) as asking, connect(listening) as silent:
        assert b"Connection: close" not in await ask(asking) + await ask(silent)
        draining = asyncio.create_task(runner.drain(LINGER_S))
        while runner.sites:  # noqa: ASYNC110 - the drain has begun when there are none
            await asyncio.sleep(0)
        assert b"Connection: close\r\n" in await ask(asking)
        assert await read(asking) == b""
        await draining
        await runner.cleanup()
        assert await read(silent) == b""


async def test_who_comes_after_the_stop_waits_for_the_next_process(runner: Runner, listening: socket.socket) -> None:
    await runner.drain(LINGER_S)
    with connect(listening) as client:
        client.sendall(REQUEST)
        await runner.cleanup()
        taken, _ = listening.accept()
        with taken:
            assert taken.recv(4096) == REQUEST
