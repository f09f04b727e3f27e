"""`umrgen-admin queue …`."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console

from umrgen_cli.admin_command import Box, add_command, add_json_option, print_json, show_count
from umrgen_cli.admin_queue_output import describe_state, render_status, show_status
from umrgen_core.errors import OperatorError
from umrgen_core.overview import Overview, OverviewReader
from umrgen_core.queue_control import QueueControl
from umrgen_core.wakeup import Listener
from umrgen_core.worker_store import WorkerState

LOOK_INTERVAL_S = 0.5
RESUME = "'umrgen-admin queue resume' lets it go on"

Done = Callable[[Overview], bool]


def add_queue_commands(commands: Any, shared: argparse.ArgumentParser) -> None:
    """Add the group to the parser of umrgen-admin."""
    queue = commands.add_parser("queue", help="hold the queue, let it run empty, let it go on").add_subparsers(
        required=True, metavar="ACTION"
    )
    status = add_command(queue, shared, "status", _status, "what waits, what runs, and since when the queue is held")
    add_json_option(status)
    pause = add_command(queue, shared, "pause", _pause, "run nothing more; what is posted is accepted and waits")
    _add_wait(pause, "until nothing runs any more")
    drain = add_command(queue, shared, "drain", _drain, "accept nothing more; what waits is still run")
    _add_wait(drain, "until nothing waits or runs any more")
    add_command(queue, shared, "resume", _resume, "run and accept again, whatever was before")


def _add_wait(parser: argparse.ArgumentParser, until: str) -> None:
    parser.add_argument("--wait", action="store_true", help=f"stay {until}")
    parser.add_argument("--timeout-s", type=float, metavar="N", help="wait no longer than this, then exit with 1")


def _reader_of(box: Box) -> OverviewReader:
    return OverviewReader(box.database.reader, box.database.statements, box.database.clock, box.settings)


async def _status(box: Box, options: argparse.Namespace) -> None:
    overview, agents = await _reader_of(box).read(), await QueueControl(box.database).list_agents()
    if options.json:
        print_json(render_status(overview, agents))
    else:
        show_status(overview, agents)


async def _pause(box: Box, options: argparse.Namespace) -> None:
    await QueueControl(box.database).pause()
    overview = await _reader_of(box).read()
    print(f"{describe_state(overview)} {show_count(len(overview.running), 'job')} running; {RESUME}")
    if options.wait:
        await _wait(box, options.timeout_s, lambda seen: not seen.running)
        print("nothing runs any more")


async def _drain(box: Box, options: argparse.Namespace) -> None:
    control = QueueControl(box.database)
    if options.wait and (await control.read()).paused:
        raise OperatorError("the queue is paused, so it would never run empty: 'umrgen-admin queue resume' first")
    await control.drain()
    overview = await _reader_of(box).read()
    print(f"{describe_state(overview)} {_count(overview)}; {RESUME}")
    if options.wait:
        await _wait(box, options.timeout_s, lambda seen: not seen.running and not seen.queued)
        print("the queue is empty and nothing runs any more")


async def _resume(box: Box, _: argparse.Namespace) -> None:
    await QueueControl(box.database).resume()
    box.hints.send(Listener.INFER, "queued")
    overview = await _reader_of(box).read()
    print(f"{describe_state(overview)} {_count(overview)}")


async def _wait(box: Box, timeout_s: float | None, done: Done) -> None:
    """Look again and again until it is done, and say how far it is. Raises OperatorError after the time."""
    reader, console = _reader_of(box), Console(stderr=True)
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    said = ""
    with console.status("") as status:
        while not done(overview := await reader.read()):
            if deadline is not None and time.monotonic() > deadline:
                raise OperatorError(f"not done after {timeout_s:g} s: {_describe_rest(overview)}")
            status.update(_describe_rest(overview))
            if not console.is_terminal and said != (said := _count_rest(overview)):
                print(said, file=sys.stderr, flush=True)
            await asyncio.sleep(LOOK_INTERVAL_S)


def _describe_rest(overview: Overview) -> str:
    steps = [f"{line.id} step {line.step}/{line.steps}" for line in overview.running[:3]]
    ready = any(worker.state is WorkerState.READY for worker in overview.workers)
    parts = [_count_rest(overview), *steps]
    return ", ".join(parts) + ("" if ready or overview.running else "; no worker is ready to run them")


def _count(overview: Overview) -> str:
    return f"{show_count(overview.queued, 'job')} waiting, {len(overview.running)} running"


def _count_rest(overview: Overview) -> str:
    held = overview.queued and overview.paused_at_us is not None and overview.draining_at_us is not None
    return f"{_count(overview)}; paused meanwhile, so what waits is not run: {RESUME}" if held else _count(overview)
