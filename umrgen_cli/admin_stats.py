"""`umrgen-admin stats`: what became of the jobs of the last days."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections import Counter
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from umrgen_cli.figures import show_bytes, show_seconds, show_span, show_sparkline
from umrgen_core.clock import SystemClock, format_time
from umrgen_core.config import Settings
from umrgen_core.errors import ConfigError
from umrgen_core.jobs import JobState
from umrgen_core.overview import Overview, OverviewReader
from umrgen_core.reader import Reader
from umrgen_core.schema import check_version, find_version
from umrgen_core.statements import load_statements
from umrgen_core.tally import HOUR_US, Counting, Tally

DAY_US = 86_400_000_000
DEFAULT_DAYS = 7.0
MOST_AGENTS = 10
MOST_BARS = 84
PIPE_COLUMNS = 140
ENDS = (JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED)


def add_stats_command(commands: Any, shared: argparse.ArgumentParser) -> None:
    """Add it to the parser of umrgen-admin."""
    text = "outcomes, times and throughput of the last days, by model and agent"
    parser = commands.add_parser("stats", parents=[shared], help=text, description=text)
    parser.add_argument(
        "--days", type=float, default=DEFAULT_DAYS, metavar="N", help="default: 7; jobs are kept as long"
    )
    parser.add_argument("--json", action="store_true", help="for scripts")
    parser.set_defaults(command=run_stats)


def run_stats(settings: Settings, options: argparse.Namespace) -> None:
    """Print everything. Raises ConfigError or SchemaError."""
    tally, overview = asyncio.run(_read(settings, options.days))
    if options.json:
        print(json.dumps(_to_json(tally, overview), indent=2))
        return
    console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_COLUMNS)
    _print(console, tally, overview)


async def _read(settings: Settings, days: float) -> tuple[Tally, Overview]:
    database, clock = settings.storage.database, SystemClock()
    if not database.exists():
        raise ConfigError(f"there is no store at {database}: start umrgen-api, or name another file with --config")
    check_version(find_version(database), database)
    statements, reader = load_statements(), Reader(database)
    await reader.open()
    try:
        overview = await OverviewReader(reader, statements, clock, settings).read()
        now_us = clock.wall_us()
        return await Counting(reader, statements).count(now_us - int(days * DAY_US), now_us), overview
    finally:
        await reader.close()


def _to_json(tally: Tally, overview: Overview) -> dict[str, Any]:
    stages = {model: {stage: asdict(spread) for stage, spread in of.items()} for model, of in tally.stages.items()}
    return {
        "since": format_time(tally.since_us),
        "until": format_time(tally.until_us),
        "oldest": None if tally.oldest_us is None else format_time(tally.oldest_us),
        "jobs": tally.jobs,
        "success": tally.success,
        "states": tally.states,
        "models": tally.models,
        "agents": tally.agents,
        "failures": tally.failures,
        "completed_per_hour": {format_time(hour * HOUR_US): jobs for hour, jobs in sorted(tally.per_hour.items())},
        "stages": stages,
        "stages_of_one_job_in": tally.every,
        "usage": asdict(overview.usage),
        "queued_now": overview.queued,
    }


def _print(console: Console, tally: Tally, overview: Overview) -> None:
    days = show_span((tally.until_us - tally.since_us) / 1e6)
    console.print(f"[bold]UMRGEN[/]  the last {days}, until {format_time(tally.until_us)[:16].replace('T', ' ')} UTC\n")
    rows = [("jobs", _describe_jobs(tally)), ("failures", _describe_failures(tally))]
    rows += [
        ("completed", _describe_hours(tally)),
        ("now", _describe_now(overview)),
        ("kept", _describe_kept(tally, overview)),
    ]
    for name, text in rows:
        if text.plain:
            console.print(Text(f"{name:<11}", "bold cyan").append(text), soft_wrap=True)
    if tally.jobs:
        console.print(_table_of_outcomes("model", tally.models, tally.jobs))
        console.print(_table_of_stages(tally))
        console.print(_table_of_outcomes("agent", dict(_busiest(tally)), tally.jobs))


def _describe_jobs(tally: Tally) -> Text:
    text = Text(f"{tally.jobs:,}")
    if tally.success is not None:
        style = "green" if tally.success >= 0.99 else "yellow" if tally.success >= 0.9 else "bold red"
        text.append("   ").append(f"{tally.success:.1%} of those that ran to an end succeeded", style)
    return text


def _describe_failures(tally: Tally) -> Text:
    return Text(", ".join(f"{code} {jobs:,}" for code, jobs in tally.failures.most_common()), "red")


def _describe_hours(tally: Tally) -> Text:
    """A bar for each hour, or for several where they would not fit on a line."""
    if not tally.per_hour:
        return Text()
    first = max(tally.since_us // HOUR_US, min(tally.per_hour))
    width = -(-(tally.until_us // HOUR_US - first + 1) // MOST_BARS)
    bars = Counter[int]()
    for hour, jobs in tally.per_hour.items():
        bars[(hour - first) // width] += jobs
    most = max(tally.per_hour, key=lambda hour: tally.per_hour[hour])
    line = show_sparkline([bars[index] for index in range(max(bars) + 1)])
    unit = "hour" if width == 1 else f"{width} hours"
    when = format_time(most * HOUR_US)[:13].replace("T", " ")
    return (
        Text()
        .append(line, "green")
        .append(f"  a bar for each {unit}; most in one hour: {tally.per_hour[most]:,}")
        .append(f" ({when}h)", "dim")
    )


def _describe_now(overview: Overview) -> Text:
    text = Text(f"{len(overview.running)} running, {overview.queued:,} waiting")
    if overview.oldest_queued_at_us is not None:
        text.append(f", the oldest for {show_span((overview.at_us - overview.oldest_queued_at_us) / 1e6)}")
    return text


def _describe_kept(tally: Tally, overview: Overview) -> Text:
    usage = overview.usage
    text = Text(f"{show_bytes(usage.output_bytes)} of outputs, {usage.references:,} references")
    text.append(f" ({show_bytes(usage.reference_bytes)}), {usage.agents:,} agent{'' if usage.agents == 1 else 's'}")
    if tally.oldest_us is not None:
        text.append(f", jobs since {format_time(tally.oldest_us)[:16].replace('T', ' ')}")
    return text


def _table_of_outcomes(of: str, counts: dict[str, Counter[JobState]], jobs: int) -> Table:
    table = Table(of, box=SIMPLE_HEAD, pad_edge=False)
    for name in ("jobs", "share", *ENDS, "under way"):
        table.add_column(name, justify="right")
    for name, states in sorted(counts.items(), key=lambda item: -item[1].total()):
        ended = [states[state] for state in ENDS]
        under_way = states.total() - sum(ended)
        shown = ("-" if count == 0 else f"{count:,}" for count in (*ended, under_way))
        table.add_row(name, f"{states.total():,}", f"{states.total() / jobs:.1%}", *shown)
    return table


def _busiest(tally: Tally) -> list[tuple[str, Counter[JobState]]]:
    return sorted(tally.agents.items(), key=lambda item: -item[1].total())[:MOST_AGENTS]


def _table_of_stages(tally: Tally) -> Table:
    told = "every job" if tally.every == 1 else f"one job in {tally.every}"
    table = Table("half / 95 % within", box=SIMPLE_HEAD, pad_edge=False, caption=f"of {told}", caption_justify="left")
    stages = list(dict.fromkeys(stage for spreads in tally.stages.values() for stage in spreads))
    for stage in stages:
        table.add_column(stage.replace("_", " "), justify="right")
    for model, spreads in sorted(tally.stages.items()):
        cells = [spreads.get(stage) for stage in stages]
        shown = ["-" if one is None else f"{show_seconds(one.p50_s)}\n{show_seconds(one.p95_s)}" for one in cells]
        table.add_row(model, *shown)
    return table
