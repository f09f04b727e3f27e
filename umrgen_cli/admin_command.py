"""What the owner's commands over the open store share: how they are added, what they are given, how they show it."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from umrgen_cli.figures import show_span
from umrgen_core.clock import SystemClock, format_time
from umrgen_core.config import Settings
from umrgen_core.database import Database, open_database
from umrgen_core.errors import OperatorError
from umrgen_core.footprint import size_of
from umrgen_core.wakeup import Hints

PIPE_COLUMNS = 240


@dataclass(frozen=True, slots=True)
class Box:
    """The service as a command finds it: its settings, its store, and a way to wake its processes."""

    settings: Settings
    database: Database
    hints: Hints


Act = Callable[[Box, argparse.Namespace], Awaitable[None]]


def add_command(group: Any, shared: argparse.ArgumentParser, name: str, act: Act, text: str) -> argparse.ArgumentParser:
    """Add a command that `act` carries out over the open store."""
    parser: argparse.ArgumentParser = group.add_parser(name, parents=[shared], help=text, description=text)
    parser.set_defaults(command=lambda settings, options: asyncio.run(_carry_out(settings, options, act)))
    return parser


async def _carry_out(settings: Settings, options: argparse.Namespace, act: Act) -> None:
    """Raises OperatorError where there is no store: the services make it, not whoever looks for jobs in it."""
    if size_of(settings.storage.database) == 0:
        raise OperatorError(f"there is no store at {settings.storage.database}: does --config name the right file?")
    async with open_database(settings, SystemClock()) as database:
        if database.integrity.is_checking:
            print("the last stop was unclean: the database is checked first, all of it", file=sys.stderr, flush=True)
        await database.integrity.wait()
        hints = Hints(settings.storage.data_dir)
        try:
            await act(Box(settings, database, hints), options)
        finally:
            hints.close()


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Add --json."""
    parser.add_argument("--json", action="store_true", help="as JSON, for scripts")


def print_table(table: Table) -> None:
    """Show a table at the terminal's width; in a pipe no line is broken."""
    Console(width=None if sys.stdout.isatty() else PIPE_COLUMNS).print(table)


def print_json(value: object) -> None:
    """Show JSON with two spaces of indentation."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def show_count(count: int, noun: str) -> str:
    """How many there are of what: 1 job, 2 jobs."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def show_time(us: int | None) -> str:
    """Wall microseconds to the second, in UTC."""
    return "-" if us is None else format_time(us)[:19] + "Z"


def show_age(us: int, now_us: int) -> str:
    """How long ago an instant of wall time is."""
    return show_span(max(now_us - us, 0) / 1e6)
