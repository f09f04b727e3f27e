"""`umrgen-api --config F`: start the web tier, serve until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import signal
import sys
from pathlib import Path

from aiohttp import web

from umrgen_api.app import build_app
from umrgen_api.protocol import Runner
from umrgen_core.clock import SystemClock
from umrgen_core.config import Settings, load_settings
from umrgen_core.errors import CANNOT_START, UmrgenError
from umrgen_core.logs import get_logger, set_up_logs

LOG = get_logger("api")
SHUTDOWN_S = 10.0
MAX_HEADER_BYTES = 8190


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Serve until `stop` is set, then let running requests finish."""
    runner = Runner(
        build_app(settings, SystemClock()),
        access_log=None,
        keepalive_timeout=settings.api.keepalive_s,
        shutdown_timeout=SHUTDOWN_S,
        max_line_size=MAX_HEADER_BYTES,
        max_field_size=MAX_HEADER_BYTES,
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, settings.api.host, settings.api.port)
        await site.start()
        for host, port, *_ in runner.addresses:
            LOG.info("listening", host=host, port=port, pid=os.getpid())
        await stop.wait()
        LOG.info("stopping")
    finally:
        await runner.cleanup()
    LOG.info("stopped")


def _raise_descriptor_limit() -> None:
    """Each connection is a descriptor; the soft limit of a login shell is low."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _run(settings: Settings) -> None:
    _raise_descriptor_limit()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await serve(settings, stop)


def main() -> int:
    """Entry of the console script."""
    parser = argparse.ArgumentParser(prog="umrgen-api", description="UMRGEN's web tier")
    parser.add_argument("--config", type=Path, default=Path("config.toml"), help="default: config.toml")
    options = parser.parse_args()
    try:
        settings = load_settings(options.config)
        set_up_logs(settings.log, settings.storage.data_dir, "umrgen-api")
        asyncio.run(_run(settings))
    except UmrgenError as error:
        print(f"umrgen-api: {error.message}", file=sys.stderr)
        return CANNOT_START
    except OSError as error:
        print(f"umrgen-api: {error}", file=sys.stderr)
        return CANNOT_START
    return 0


if __name__ == "__main__":
    sys.exit(main())
