"""`umrgen-api --config F`: start the web tier, serve until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from aiohttp import web

from umrgen_api.app import build_app
from umrgen_api.protocol import Runner
from umrgen_api.services import SERVICES
from umrgen_core.clock import SystemClock
from umrgen_core.collector import set_start_aside
from umrgen_core.config import Settings, load_settings
from umrgen_core.errors import UmrgenError, find_exit_status
from umrgen_core.logs import get_logger, log_death, set_up_logs
from umrgen_core.supervision import Supervision, Work
from umrgen_core.systemd import Notifier, describe_address, find_notifier, is_local, take_sockets

LOG = get_logger("api")
SHUTDOWN_S = 10.0
LINGER_S = 0.5
"""An idle connection is kept open for so long at the end: a client that is quick is told to connect anew."""
BACKLOG = 4096
"""Connections that wait to be taken: on a socket of systemd's also those that come while no web tier runs."""
MAX_HEADER_BYTES = 8190


async def serve(
    settings: Settings, stop: asyncio.Event, sockets: Sequence[socket.socket] = (), notifier: Notifier | None = None
) -> None:
    """Serve until `stop` is set, then let running requests finish.

    Listens on `sockets` where there are any, else where [api] says.
    """
    notifier = notifier or Notifier()
    local = all(is_local(one) for one in sockets) if sockets else None
    runner = Runner(
        build_app(settings, SystemClock(), listens_locally=local),
        access_log=None,
        keepalive_timeout=settings.api.keepalive_s,
        shutdown_timeout=SHUTDOWN_S,
        max_line_size=MAX_HEADER_BYTES,
        max_field_size=MAX_HEADER_BYTES,
    )
    await runner.setup()
    try:
        listening = await _listen(runner, settings, sockets)
        for host, port in listening:
            LOG.info("listening", host=host, port=port, pid=os.getpid())
        set_start_aside()
        supervision = Supervision(notifier, runner.app[SERVICES].database)
        where = ", ".join(_to_text(host, port) for host, port in listening)
        living = asyncio.create_task(supervision.live(lambda work: _describe(where, work)))
        living.add_done_callback(log_death)
        notifier.status(f"serving on {where}")
        notifier.ready()
        await stop.wait()
        LOG.info("stopping")
        notifier.stopping()
        living.cancel()
        with suppress(asyncio.CancelledError):
            await living
        notifier.status("stopping, answers what is under way")
        await runner.drain(LINGER_S)
    finally:
        await runner.cleanup()
    LOG.info("stopped")


async def _listen(runner: Runner, settings: Settings, sockets: Sequence[socket.socket]) -> list[tuple[str, int]]:
    """Take connections; the addresses as host and port, or as path and 0."""
    sites: list[web.BaseSite] = [web.SockSite(runner, one, backlog=BACKLOG) for one in sockets]
    for site in sites or [web.TCPSite(runner, settings.api.host, settings.api.port)]:
        await site.start()
    if sockets:
        return [describe_address(one) for one in sockets]
    return [(host, port) for host, port, *_ in runner.addresses]


def _to_text(host: str, port: int) -> str:
    if not port:
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _describe(where: str, work: Work) -> str:
    return f"serving on {where}, {work.running} running, {work.queue}"


def _raise_descriptor_limit() -> None:
    """Each connection is a descriptor; the soft limit of a login shell is low."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _run(settings: Settings, notifier: Notifier) -> None:
    _raise_descriptor_limit()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await serve(settings, stop, take_sockets(), notifier)


def main() -> int:
    """Entry of the console script."""
    parser = argparse.ArgumentParser(prog="umrgen-api", description="UMRGEN's web tier")
    parser.add_argument("--config", type=Path, default=Path("config.toml"), help="default: config.toml")
    options = parser.parse_args()
    notifier = find_notifier()
    try:
        settings = load_settings(options.config)
        set_up_logs(settings.log, settings.storage.data_dir, "umrgen-api")
        asyncio.run(_run(settings, notifier))
    except (UmrgenError, OSError) as error:
        print(f"umrgen-api: {error}", file=sys.stderr)
        return find_exit_status(error, was_ready=notifier.is_ready)
    return 0


if __name__ == "__main__":
    sys.exit(main())
