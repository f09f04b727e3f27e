"""`umrgen-admin doctor`: whether everything is as it should be, and what to do where it is not."""

from __future__ import annotations

import argparse
import asyncio
import json
from dataclasses import asdict
from textwrap import wrap
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from umrgen_cli.doctor.examine import examine
from umrgen_cli.doctor.findings import Finding, Level
from umrgen_cli.doctor.patient import admit
from umrgen_core.clock import SystemClock, format_time

STYLES = {Level.OK: "green", Level.WARNING: "yellow", Level.PROBLEM: "bold red"}
LEVEL_COLUMNS = 9
NAME_COLUMNS = 18
INDENT_COLUMNS = 2 + LEVEL_COLUMNS + NAME_COLUMNS
PIPE_COLUMNS = 120

Findings = dict[str, list[Finding]]


def add_doctor_command(commands: Any, shared: argparse.ArgumentParser) -> None:
    """Add it to the parser of umrgen-admin."""
    text = "look at the whole install and say what to do; changes nothing"
    parser = commands.add_parser("doctor", parents=[shared], help=text, description=text)
    parser.add_argument("--deep", action="store_true", help="also load torch and paint with every model: minutes")
    parser.add_argument("--json", action="store_true", help="for scripts")
    parser.set_defaults(examine=run_doctor)


def run_doctor(options: argparse.Namespace) -> int:
    """Say everything; 1 where there is a problem, 0 with warnings alone."""
    clock = SystemClock()
    patient = asyncio.run(admit(options.config, clock, deep=options.deep))
    findings = examine(patient)
    if options.json:
        print(json.dumps(_to_json(findings), indent=2))
    else:
        console = Console(highlight=False)
        when = format_time(clock.wall_us())[:19].replace("T", " ")
        console.print(f"[bold]UMRGEN doctor[/]  {escape(str(options.config.resolve()))}  {when} UTC", soft_wrap=True)
        _print(console, findings)
    return 1 if _count(findings)[Level.PROBLEM] else 0


def _count(findings: Findings) -> dict[Level, int]:
    return {level: sum(one.level is level for area in findings.values() for one in area) for level in Level}


def _to_json(findings: Findings) -> dict[str, Any]:
    return {
        "healthy": not _count(findings)[Level.PROBLEM],
        "counts": _count(findings),
        "findings": [{"area": area, **asdict(one)} for area, found in findings.items() for one in found],
    }


def _print(console: Console, findings: Findings) -> None:
    width = console.width if console.is_terminal else PIPE_COLUMNS
    for area, found in findings.items():
        if found:
            console.print(f"\n[bold]{area}[/]")
        for one in found:
            for line in _lay_out(one, width):
                console.print(line, soft_wrap=True)
    console.print()
    console.print(_sum_up(findings))


def _lay_out(one: Finding, width: int) -> list[Text]:
    """The lines of a finding: level and name, what was seen, and below it what to do."""
    room = max(width - INDENT_COLUMNS, 30)
    first, *rest = wrap(one.seen, room) or [""]
    head = Text(f"  {one.level:<{LEVEL_COLUMNS}}", STYLES[one.level])
    lines = [head.append(f"{one.name:<{NAME_COLUMNS - 1}} {first}", "none")]
    advice = wrap(f"to do: {one.advice}", room) if one.advice else []
    lines += [Text(" " * INDENT_COLUMNS + line) for line in rest]
    return lines + [Text(" " * INDENT_COLUMNS + line, "bold") for line in advice]


def _sum_up(findings: Findings) -> Text:
    count = _count(findings)
    worst = next((level for level in (Level.PROBLEM, Level.WARNING) if count[level]), Level.OK)
    words = {Level.PROBLEM: "problem", Level.WARNING: "warning"}
    said = [f"{count[level]} {word}{'' if count[level] == 1 else 's'}" for level, word in words.items()]
    return Text(f"{', '.join(said)}, {count[Level.OK]} good", STYLES[worst])
