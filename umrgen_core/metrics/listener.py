"""Where a process shows its metrics: the client's own server, in a thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prometheus_client import CollectorRegistry, start_http_server

from umrgen_core.errors import ConfigError
from umrgen_core.logs import get_logger

LOG = get_logger("metrics")


@asynccontextmanager
async def show_metrics(key: str, address: str, registry: CollectorRegistry) -> AsyncIterator[int | None]:
    """Answer at `address`, the value of `[metrics] key`, for as long as the block lasts; nowhere when it is empty.

    Gives the port. Raises ConfigError where it cannot listen there.
    """
    if not address:
        yield None
        return
    host, _, port = address.rpartition(":")
    try:
        server, thread = start_http_server(int(port), host.strip("[]"), registry)
    except OSError as error:
        raise ConfigError(f"[metrics] {key}: cannot listen on {address} ({error.strerror or error})") from None
    LOG.info("metrics_listening", host=host, port=server.server_port)
    try:
        yield server.server_port
    finally:
        await asyncio.to_thread(server.shutdown)  # takes as long as its thread's next look: half a second
        server.server_close()
        thread.join()
