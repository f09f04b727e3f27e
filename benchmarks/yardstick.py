"""Limits to measure against: a bare aiohttp server, a bare file handler, a lone fdatasync behind a thread hop.

`python -m benchmarks.yardstick FOLDER` serves "Hello, world" at / and the files of FOLDER below /static.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import queue
import signal
import sys
import threading
from pathlib import Path
from typing import Self

from aiohttp import web

PAGE_BYTES = 4096
PAGES = 1024


async def _hello(_: web.Request) -> web.Response:
    return web.Response(text="Hello, world")


async def serve(folder: Path) -> None:
    """Serve until SIGTERM."""
    app = web.Application()
    app.router.add_get("/", _hello)
    app.router.add_static("/static", folder)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(json.dumps({"event": "listening", "port": runner.addresses[0][1]}), flush=True)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    await runner.cleanup()


class DurableHop:
    """The least that a durable write from an event loop costs: a thread woken, a page synced, the loop woken.

    The page is written over one that is there already, as SQLite does in a log that has been used before.
    """

    def __init__(self, folder: Path) -> None:
        self._fd = os.open(folder / "durable-hop", os.O_RDWR | os.O_CREAT, 0o600)
        os.write(self._fd, bytes(PAGE_BYTES * PAGES))
        os.fsync(self._fd)
        self._page = 0
        # Made beforehand, for that takes time too. PAGES is no multiple of three: each rewrite changes its page.
        self._contents = itertools.cycle([os.urandom(PAGE_BYTES) for _ in range(3)])
        self._asked: queue.SimpleQueue[asyncio.Future[None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._asked.put(None)
        self._thread.join()
        os.close(self._fd)

    async def run(self) -> None:
        """One write, on disk when this returns."""
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asked.put(answer)
        await answer

    def sync_page(self) -> None:
        """The write alone, in the calling thread."""
        self._page = (self._page + 1) % PAGES
        os.pwrite(self._fd, next(self._contents), self._page * PAGE_BYTES)
        os.fdatasync(self._fd)

    def _serve(self) -> None:
        while (answer := self._asked.get()) is not None:
            self.sync_page()
            answer.get_loop().call_soon_threadsafe(answer.set_result, None)


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
