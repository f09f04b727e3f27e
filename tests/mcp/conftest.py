"""The MCP server over both transports, beside the running service."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client, StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client

from tests.client.conftest import environment_of
from tests.client.service import shared_service
from tests.conftest import DEVELOPMENT_KEY, ROOT
from tests.e2e.conftest import Stack
from umrgen_cli.processes import Daemon, running, start_daemon

PUBLIC_URL = "https://umrgen.example"
Connect = Callable[..., AbstractAsyncContextManager[Client]]


@pytest.fixture(scope="session")
def service() -> Stack:
    return shared_service()


def start_mcp(service: Stack, log: Path, **environment: str) -> Daemon:
    """`umrgen-mcp` over HTTP on a free port, with a public URL unless told otherwise."""
    settings = {
        "UMRGEN_MCP__PORT": "0",
        "UMRGEN_MCP__API_URL": service.url,
        "UMRGEN_API__PUBLIC_URL": PUBLIC_URL,
        **environment,
    }
    return start_daemon("umrgen_mcp", ROOT / "config.toml", log, settings)


@pytest.fixture(scope="session")
def mcp_url(service: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    daemon = start_mcp(service, tmp_path_factory.mktemp("mcp") / "mcp.out")
    with running(daemon):
        yield f"http://127.0.0.1:{daemon.wait_for_event('listening', 60)['port']}/mcp"


@asynccontextmanager
async def connect_http(
    url: str, key: str = DEVELOPMENT_KEY, mode: Any = "auto", **headers: str
) -> AsyncIterator[Client]:
    """The SDK's client over streamable HTTP."""
    async with (
        httpx2.AsyncClient(headers={"Authorization": f"Bearer {key}", **headers}, timeout=60) as http,
        Client(streamable_http_client(url, http_client=http), mode=mode) as client,
    ):
        yield client


@asynccontextmanager
async def connect_stdio(url: str) -> AsyncIterator[Client]:
    """The SDK's client over stdin and stdout."""
    arguments = ["-m", "umrgen_mcp", "--stdio"]
    server = StdioServerParameters(command=sys.executable, args=arguments, env=environment_of(url), cwd=str(ROOT))
    async with Client(stdio_client(server)) as client:
        yield client
