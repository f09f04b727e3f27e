"""The real application on a loopback port, with a clock that the test moves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.conftest import DEVELOPMENT_KEY, FakeClock, make_settings
from umrgen_api.app import build_app
from umrgen_api.protocol import Runner
from umrgen_api.services import SERVICES, Services
from umrgen_core.config import Settings

HEADERS = {"Authorization": f"Bearer {DEVELOPMENT_KEY}"}


class Server:
    """A running web tier and a session of an agent with the development key."""

    def __init__(self, app: web.Application, url: str, session: aiohttp.ClientSession) -> None:
        self.app = app
        self.url = url
        self.session = session

    @property
    def services(self) -> Services:
        return self.app[SERVICES]

    async def call(self, method: str, path: str, **arguments: Any) -> tuple[int, Any, dict[str, str]]:
        """Status, parsed JSON and headers of one request."""
        async with self.session.request(method, path, **arguments) as response:
            return response.status, await response.json(), dict(response.headers)

    async def upload(self, content: bytes, filename: str = "image.png") -> tuple[int, Any, dict[str, str]]:
        form = aiohttp.FormData()
        form.add_field("file", content, filename=filename)
        return await self.call("POST", "/api/v1/upload-reference", data=form)

    async def generate(self, **fields: Any) -> tuple[int, Any, dict[str, str]]:
        return await self.call("POST", "/api/v1/generate", json={"prompt": "a red circle", **fields})


StartServer = Callable[..., Awaitable[Server]]


@pytest.fixture
async def start_server(tmp_path: Path, clock: FakeClock) -> AsyncIterator[StartServer]:
    """`await start_server(limits={"concurrent_jobs": 5})`."""
    opened: list[Any] = []

    async def start(settings: Settings | None = None, **sections: Any) -> Server:
        settings = settings or make_settings(tmp_path / "data", **sections)
        app = build_app(settings, clock)
        runner = Runner(app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        session = aiohttp.ClientSession(url, headers=HEADERS)
        opened.append((session, runner))
        return Server(app, url, session)

    yield start
    for session, runner in reversed(opened):
        await session.close()
        await runner.cleanup()


@pytest.fixture
async def server(start_server: StartServer) -> Server:
    return await start_server()
