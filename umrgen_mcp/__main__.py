"""`umrgen-mcp --config F` serves over HTTP, `umrgen-mcp --stdio` one local agent on stdin and stdout."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import uvicorn
from starlette.types import ASGIApp

from umrgen_client import NotConfigured
from umrgen_client.connection import KEY_VARIABLE, URL_VARIABLE, find_address
from umrgen_core.config import Settings, load_settings
from umrgen_core.errors import CANNOT_START, ConfigError, UmrgenError
from umrgen_core.logs import get_logger, set_up_logs
from umrgen_mcp.callers import Callers
from umrgen_mcp.protocol import Protocol
from umrgen_mcp.server import build_http_app, build_server
from umrgen_mcp.tools import Tools

LOG = get_logger("mcp")
STOP_S = 10
MAX_CALLS = 2000


class Server(uvicorn.Server):
    """One that leaves signals to this process."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield

    def stop(self) -> None:
        """Answer what is under way for STOP_S at most, then end."""
        self.should_exit = True


def configure(app: ASGIApp) -> uvicorn.Config:
    """How `app` is served."""
    return uvicorn.Config(
        app,
        http=Protocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=STOP_S,
        limit_concurrency=MAX_CALLS,
    )


async def serve_http(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises OSError where it cannot listen."""
    host, port = settings.mcp.host, settings.mcp.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The owner has named the web tier: no proxy of the environment stands between. Each waiting call is a connection.
    async with httpx2.AsyncClient(trust_env=False, limits=httpx2.Limits(max_connections=MAX_CALLS)) as http:
        callers = Callers(settings.mcp.api_url, http)
        tools = Tools(callers, settings.api.public_url)
        server = Server(configure(build_http_app(build_server(tools), callers)))
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, server.stop)
        with socket.create_server((host, port), family=family, reuse_port=False) as listener:
            LOG.info("listening", host=host, port=listener.getsockname()[1], api_url=settings.mcp.api_url)
            await server.serve(sockets=[listener])
    LOG.info("stopped")


async def serve_stdio(url: str, api_key: str) -> None:
    """Serve one agent on stdin and stdout until it closes them. URLs begin as the service's address does."""
    address = find_address(url, api_key)
    async with httpx2.AsyncClient() as http:
        tools = Tools(Callers(address.url, http, api_key), address.url)
        await build_server(tools).run_stdio_async()


def refuse_open_development_key(settings: Settings) -> None:
    """A key that stands in the documentation must not open a server that others can reach. Raises ConfigError."""
    auth = settings.auth
    loopback = settings.api.model_copy(update={"host": settings.mcp.host}).listens_on_loopback()
    if auth.development_key and not auth.development_key_public and not loopback:
        raise ConfigError(
            "[auth] development_key is on while [mcp] host is not loopback: set development_key ="
            ' "", or development_key_public = true if you mean it'
        )


def main() -> int:
    """Entry of the console script."""
    parser = argparse.ArgumentParser(prog="umrgen-mcp", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("config.toml"), help="default: config.toml")
    parser.add_argument(
        "--stdio", action="store_true", help=f"serve stdin and stdout; reads {URL_VARIABLE} and {KEY_VARIABLE}, no file"
    )
    options = parser.parse_args()
    try:
        if options.stdio:
            asyncio.run(serve_stdio(os.environ.get(URL_VARIABLE, ""), os.environ.get(KEY_VARIABLE, "")))
            return 0
        settings = load_settings(options.config)
        refuse_open_development_key(settings)
        # To stderr alone: this process needs nothing of the data directory.
        set_up_logs(settings.log.model_copy(update={"file_bytes": 0}), settings.storage.data_dir, "umrgen-mcp")
        asyncio.run(serve_http(settings))
    except (UmrgenError, NotConfigured) as error:
        print(f"umrgen-mcp: {error.message}", file=sys.stderr)
        return CANNOT_START
    except OSError as error:
        print(f"umrgen-mcp: {error}", file=sys.stderr)
        return CANNOT_START
    return 0


if __name__ == "__main__":
    sys.exit(main())
