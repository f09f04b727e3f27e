"""`umrgen-admin top`: the service as it runs, until Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from importlib import metadata
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from umrgen_cli.doctor.findings import MISSED_HEARTBEATS
from umrgen_cli.top_frame import View, build_frame
from umrgen_core.clock import SystemClock
from umrgen_core.config import Settings
from umrgen_core.errors import ConfigError, Unavailable
from umrgen_core.footprint import list_processes, read_footprint
from umrgen_core.gpus import Gpus
from umrgen_core.overview import OverviewReader, RunningLine
from umrgen_core.reader import Reader
from umrgen_core.schema import check_version, find_version
from umrgen_core.statements import load_statements

SHORTEST_INTERVAL_S = 0.1
MOST_FINISHED = 60
PIPE_SIZE = (100, 30)


def add_top_command(commands: Any, shared: argparse.ArgumentParser) -> None:
    """Add it to the parser of umrgen-admin."""
    text = "watch the service: workers, queue, what ended last, machine"
    parser = commands.add_parser("top", parents=[shared], help=text, description=text)
    parser.add_argument("--interval", type=float, default=1.0, metavar="S", help="seconds between looks; default: 1")
    parser.add_argument("--once", action="store_true", help="print one frame and end")
    parser.set_defaults(command=run_top)


def run_top(settings: Settings, options: argparse.Namespace) -> None:
    """Watch until Ctrl-C; where nobody watches, print one frame. Raises ConfigError or SchemaError."""
    try:
        if options.once or not sys.stdout.isatty():
            asyncio.run(_print_once(settings))
        else:
            asyncio.run(_watch(settings, max(options.interval, SHORTEST_INTERVAL_S)))
    except KeyboardInterrupt:
        return


class Rates:
    """Steps a second of each running job, from one look to the next."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, float]] = {}
        self._rates: dict[str, float] = {}

    def update(self, running: Iterable[RunningLine], now_s: float) -> dict[str, float]:
        """The rates now. A job that has made no step since keeps the rate that it had."""
        jobs = {job.id: job.step for job in running}
        self._rates = {name: rate for name, rate in self._rates.items() if name in jobs}
        for name, step in jobs.items():
            before, since_s = self._seen.get(name, (step, now_s))
            if step > before:
                self._rates[name] = (step - before) / (now_s - since_s)
            if step != before or name not in self._seen:
                self._seen[name] = (step, now_s)
        self._seen = {name: seen for name, seen in self._seen.items() if name in jobs}
        return dict(self._rates)


class Watch:
    """Looks at everything that a frame shows."""

    def __init__(self, settings: Settings, overviews: OverviewReader) -> None:
        self._settings = settings
        self._overviews = overviews
        self._gpus = Gpus()
        self._rates = Rates()
        self._version = metadata.version("umrgen")

    async def look(self) -> View:
        """One look. Raises Unavailable when the store cannot be read."""
        overview = await self._overviews.read(MOST_FINISHED)
        storage, jobs = self._settings.storage, self._settings.jobs
        return View(
            version=self._version,
            overview=overview,
            footprint=read_footprint(storage),
            processes=list_processes(storage.data_dir),
            gpus=self._gpus.read() or [],
            disk_floor_bytes=storage.disk_floor_bytes,
            silent_s=jobs.heartbeat_s * MISSED_HEARTBEATS,
            rates=self._rates.update(overview.running, time.monotonic()),
        )


@asynccontextmanager
async def open_watch(settings: Settings) -> AsyncIterator[Watch]:
    """A watch over the store, which must be there. Raises ConfigError or SchemaError."""
    database = settings.storage.database
    if not database.exists():
        raise ConfigError(f"there is no store at {database}: start umrgen-api, or name another file with --config")
    check_version(find_version(database), database)
    reader = Reader(database)
    await reader.open()
    try:
        yield Watch(settings, OverviewReader(reader, load_statements(), SystemClock(), settings))
    finally:
        await reader.close()


async def _print_once(settings: Settings) -> None:
    console = Console(highlight=False)
    width, height = console.size if console.is_terminal else PIPE_SIZE
    async with open_watch(settings) as watch:
        console.print(build_frame(await watch.look(), width, height - 1), soft_wrap=True)


async def _watch(settings: Settings, interval_s: float) -> None:
    console = Console(highlight=False)
    async with open_watch(settings) as watch:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                live.update(await _draw(watch, console), refresh=True)
                await asyncio.sleep(interval_s)


async def _draw(watch: Watch, console: Console) -> Text:
    try:
        return build_frame(await watch.look(), console.width, console.height)
    except Unavailable as error:  # looked for again: a restore may be under way
        return Text(error.message, "bold red")
