"""What systemd says of the units, where it runs and has them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from umrgen_cli.doctor.findings import Finding, Patient, good, problem, warning

RUNNING = Path("/run/systemd/system")
PATTERNS = ("umrgen-api.socket", "umrgen-api.service", "umrgen-infer@*.service", "umrgen-backup.timer")
PROPERTIES = "Id,LoadState,ActiveState,SubState,UnitFileState,Result,NRestarts,DropInPaths"
ANSWER_S = 10.0
MANY_RESTARTS = 3


def check_units(_: Patient, systemctl: str | None = None, running: Path = RUNNING) -> Iterator[Finding]:
    """Active, enabled, not started again and again."""
    systemctl = systemctl or shutil.which("systemctl")
    if systemctl is None or not running.is_dir():
        return
    command = [systemctl, "show", f"--property={PROPERTIES}", *PATTERNS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_S, check=False)
    units = [_parse(block) for block in done.stdout.strip().split("\n\n") if block]
    if all(unit.get("LoadState") == "not-found" for unit in units):
        return  # something else starts UMRGEN here
    for unit in units:
        yield from _judge(unit)
    if not any(unit.get("Id", "").startswith("umrgen-infer@") for unit in units):
        advice = "run: systemctl enable --now umrgen-infer@0"
        yield problem("umrgen-infer@", "no inference daemon is set up as a unit", advice)


def _parse(block: str) -> dict[str, str]:
    return dict(line.partition("=")[::2] for line in block.splitlines())


def _judge(unit: dict[str, str]) -> Iterator[Finding]:
    name = unit.get("Id", "?")
    if unit.get("LoadState") == "not-found":
        yield warning(name, "not installed", "run 'sudo make install'")
        return
    restarts = int(unit.get("NRestarts") or 0)
    seen = f"{unit.get('ActiveState')} ({unit.get('SubState')}), {unit.get('UnitFileState') or 'not enabled'}"
    if restarts:
        seen += f", started again {restarts} times"
    if drop_ins := unit.get("DropInPaths"):
        seen += f", changed by {drop_ins}"
    if unit.get("ActiveState") == "failed":
        advice = f"'journalctl -u {name} -n 50' says why; then: systemctl reset-failed {name} && systemctl start {name}"
        yield problem(name, f"{seen}: {unit.get('Result')}", advice)
    elif unit.get("ActiveState") != "active":
        yield problem(name, seen, f"run: systemctl enable --now {name}")
    elif unit.get("UnitFileState") == "disabled":
        yield warning(name, seen, f"it does not start with the machine; run: systemctl enable {name}")
    elif restarts >= MANY_RESTARTS:
        yield warning(name, seen, f"'journalctl -u {name}' says why")
    else:
        yield good(name, seen)
