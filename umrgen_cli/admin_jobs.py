"""`umrgen-admin jobs …`."""

from __future__ import annotations

import argparse
from itertools import groupby
from typing import Any

from rich.table import Column, Table

from umrgen_cli.admin_command import Box, add_command, add_json_option, print_json, print_table, show_age
from umrgen_core.jobs import JobState
from umrgen_core.operator_records import JobLine, JobRecord
from umrgen_core.operator_store import ALL, LOOKED_AT, JobFilter, OperatorStore
from umrgen_core.wakeup import Listener

MOST_LISTED = 20
COLUMNS = ("agent", "state", "model", "size", "age", "ran")


def add_job_commands(commands: Any, shared: argparse.ArgumentParser) -> None:
    """Add the group to the parser of umrgen-admin."""
    jobs = commands.add_parser("jobs", help="the jobs of every agent").add_subparsers(required=True, metavar="ACTION")
    listed = add_command(jobs, shared, "list", _list, "jobs of every agent, newest first, without their prompts")
    listed.add_argument("--agent", help="only this agent's")
    listed.add_argument("--state", type=JobState, choices=list(JobState), help="only those in this state")
    listed.add_argument("--model", help=f"only this model's; of ended jobs, among the newest {LOOKED_AT}")
    listed.add_argument("--all", action="store_true", help="with --model, look at every job, however many there are")
    listed.add_argument("--limit", type=_read_limit, default=MOST_LISTED, help=f"default: {MOST_LISTED}")
    add_json_option(listed)
    shown = add_command(jobs, shared, "show", _show, "everything about one job; its prompt only when asked for")
    shown.add_argument("id")
    shown.add_argument("--prompt", action="store_true", help="prompts are private: show this one all the same")
    add_json_option(shown)
    cancelled = add_command(jobs, shared, "cancel", _cancel, "end a queued or running job, as its agent would")
    cancelled.add_argument("id")
    add_json_option(cancelled)
    again = add_command(jobs, shared, "retry", _retry, "submit the request of an ended job again, as a new job")
    again.add_argument("id")
    again.add_argument("--force", action="store_true", help="also where the job is completed")
    add_json_option(again)


def _read_limit(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= 100_000):
        raise argparse.ArgumentTypeError("must be a whole number from 1 to 100000")
    return int(text)


async def _list(box: Box, options: argparse.Namespace) -> None:
    store = OperatorStore(box.database, box.settings)
    wanted = JobFilter(options.agent, options.state, options.model)
    page = await store.list_jobs(wanted, options.limit, look=ALL if options.all else LOOKED_AT)
    if options.json:
        lines = [line.as_json() for line in page.lines]
        print_json({"jobs": lines, "more": page.next_before is not None, "looked_at": page.looked_at})
        return
    _show_lines(page.lines, box.database.clock.wall_us())
    if page.next_before is not None:
        print(f"there are more than these {len(page.lines)}: --limit shows them")
    if page.looked_at is not None:
        print(f"looked at the newest {page.looked_at} jobs; --all looks at every one")


def _show_lines(lines: tuple[JobLine, ...], now_us: int) -> None:
    if not lines:
        print("no such jobs")
        return
    rest = [Column(name, overflow="fold") for name in COLUMNS]
    table = Table(Column("job", no_wrap=True), *rest, box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for line in lines:
        size, age = f"{line.width}x{line.height}", show_age(line.created_at_us, now_us)
        table.add_row(line.id, line.agent, _show_state(line), line.model, size, age, _show_run(line))
    print_table(table)


def _show_state(line: JobLine) -> str:
    """The state with what is worth a look about it."""
    notes = [f"{line.step}/{line.steps}"] if line.state is JobState.RUNNING else []
    notes += [line.error_code] if line.error_code else []
    notes += ["cancel asked for"] if line.cancel_requested and not line.state.ended else []
    notes += [f"attempt {line.attempts}"] if line.attempts > 1 else []
    return ", ".join([line.state.value, *notes])


def _show_run(line: JobLine) -> str:
    if line.started_at_us is None or line.finished_at_us is None:
        return "-"
    return f"{(line.finished_at_us - line.started_at_us) / 1e6:.2f} s"


async def _show(box: Box, options: argparse.Namespace) -> None:
    record = await OperatorStore(box.database, box.settings).show(options.id)
    told = record.as_json(with_prompt=options.prompt)
    if options.json:
        print_json(told)
        return
    _show_record(record, told)
    if not options.prompt:
        print("the prompt is not shown; --prompt shows it")


def _show_record(record: JobRecord, told: dict[str, object]) -> None:
    shown = told | {"events": _sum_up(record)}
    rows = [row for name, value in shown.items() for row in _flatten(name, value)]
    width = max(len(label) for label, _ in rows)
    for label, text in rows:
        print(f"{label:{width}}  {_tame(text)}")


def _sum_up(record: JobRecord) -> str:
    """Kinds of events in order; of several alike in a row only how many."""
    runs = [(kind, len(list(group))) for kind, group in groupby(kind for _, kind in record.events)]
    return ", ".join(kind if count == 1 else f"{count} {kind}" for kind, count in runs)


def _tame(text: str) -> str:
    """An agent's words must not steer the owner's terminal: what cannot be printed is shown as its escape."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _flatten(name: str, value: object) -> list[tuple[str, str]]:
    """Rows of the grid: an object's members each have one, under its name."""
    if isinstance(value, dict) and value:
        return [row for inner, part in value.items() for row in _flatten(f"{name}.{inner}", part)]
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [row for index, part in enumerate(value) for row in _flatten(f"{name}[{index}]", part)]
    if isinstance(value, list):
        return [(name, ", ".join(map(str, value)) or "-")]
    return [(name, "-" if value is None or value == {} else str(value))]


async def _cancel(box: Box, options: argparse.Namespace) -> None:
    store = OperatorStore(box.database, box.settings)
    had_ended = (await store.show(options.id)).job.state.ended
    job = await store.cancel(options.id)
    for listener in (Listener.INFER, Listener.API):
        box.hints.send(listener, job.id)
    if options.json:
        print_json({"job_id": job.id, "state": job.state.value, "cancel_requested": not job.state.ended})
    elif job.state is JobState.RUNNING:
        print(f"{job.id} is asked to end; its worker does so before the next step")
    elif had_ended:
        print(f"{job.id} had ended already: it is {job.state.value}, and nothing was changed")
    else:
        print(f"{job.id} is {job.state.value}")


async def _retry(box: Box, options: argparse.Namespace) -> None:
    again = await OperatorStore(box.database, box.settings).retry(options.id, force=options.force)
    box.hints.send(Listener.INFER, "queued")
    if options.json:
        print_json({"job_id": again.id, "retry_of": options.id, "state": again.state.value})
    else:
        print(f"{options.id} is submitted again as {again.id}")
