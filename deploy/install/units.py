"""The units in /etc/systemd/system, and what runs of them."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.install import box
from deploy.install.places import Places
from deploy.install.release import Release
from deploy.install.shell import read, run, say, succeeds, write_file

API = "umrgen-api.service"
SOCKET = "umrgen-api.socket"
MCP = "umrgen-mcp.service"
FIRST_DAEMON = "umrgen-infer@0.service"
TIMER = "umrgen-backup.timer"
DAEMONS = "umrgen-infer@*.service"
SHIPPED = Path(__file__).resolve().parents[1] / "systemd"
LINES = 15
"""Of the journal, where something failed."""


def install_units(release: Release, places: Places) -> None:
    """Put a release's units in place, and take away those that it does not have."""
    ours = sorted((release.folder / "deploy/systemd").iterdir())
    for unit in _list_installed(places):
        if unit.name not in {path.name for path in ours}:
            unit.unlink()
    for path in ours:
        write_file(places.units / path.name, fit_to_box(path.read_text(encoding="utf-8")), 0o644)
    run("systemctl", "daemon-reload")


def fit_to_box(unit: str) -> str:
    """A unit without what this box has not: a socket that cannot listen on one of its addresses does not start."""
    if box.has_ipv6():
        return unit
    return "".join(line for line in unit.splitlines(keepends=True) if not line.startswith("ListenStream=[::1]"))


def remove_units(places: Places) -> None:
    """Stop everything, also at the next boot, and remove the units. The owner's drop-ins (*.d) stay."""
    installed = _list_installed(places)
    plain = [path.name for path in installed if "@" not in path.name]
    for unit in (SOCKET, *plain, *_list_daemons()):  # the socket first: it would start the web tier again
        if succeeds("systemctl", "cat", unit):
            run("systemctl", "disable", "--now", "--quiet", unit)
    for path in installed:
        path.unlink()
        succeeds("systemctl", "reset-failed", path.name.replace("@.", "@*."))
    places.timer_stamp.unlink(missing_ok=True)
    run("systemctl", "daemon-reload")


def remove_drop_ins(places: Places) -> None:
    """Remove what the owner has added to our units; units of the owner's own keep theirs."""
    ours = _list_shipped(places)
    for folder in places.units.glob("umrgen*.d"):
        if re.sub(r"@[^.]*", "@", folder.stem) in ours:
            shutil.rmtree(folder)
    run("systemctl", "daemon-reload")


def enable_first() -> None:
    """What a new box starts at boot. Further daemons and the MCP server are the owner's choice."""
    run("systemctl", "enable", "--quiet", SOCKET, API, FIRST_DAEMON, TIMER)


def is_wanted(unit: str) -> bool:
    """Whether a unit runs, or starts at boot."""
    return succeeds("systemctl", "is-enabled", "--quiet", unit) or succeeds("systemctl", "is-active", "--quiet", unit)


def list_wanted() -> tuple[list[str], list[str]]:
    """Daemons and further services that are to run: those that do, and those that start at boot."""
    daemons = [unit for unit in _list_daemons() if is_wanted(unit)]
    return daemons, [unit for unit in (MCP,) if is_wanted(unit)]


def stop(daemons: list[str], others: list[str]) -> None:
    """Stop the services; the socket goes on listening. The daemons come first: meanwhile jobs are still accepted."""
    for batch in (daemons, [API, *others]):
        if batch:
            run("systemctl", "stop", *batch)


def start(*units: str) -> None:
    """Start units and wait until they say that they are ready. Raises InstallFailed."""
    if units:
        succeeds("systemctl", "reset-failed", *units)
        run("systemctl", "start", *units)


@contextmanager
def holding(folder: Path) -> Iterator[None]:
    """Keep the services that lock this folder before they start waiting, until the end or our death."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def describe_failure(units: list[str]) -> str:
    """The last lines that units said of themselves, without the requests between them."""
    names = [word for unit in units for word in ("--unit", unit)]
    said = read("journalctl", "--no-pager", "--quiet", "--output", "cat", "--lines", "1000", *names).splitlines()
    return "\n".join([line for line in said if '"event": "request"' not in line][-LINES:])


def find_address() -> str:
    """The first TCP address that the socket unit listens on, as HOST:PORT; empty where it has none."""
    shown = run("systemctl", "show", SOCKET, "--property", "Listen", "--value")
    addresses = [line.split()[0] for line in shown.splitlines() if line.endswith("(Stream)")]
    return next((address for address in addresses if not address.startswith(("/", "@"))), "")


def say_states(daemons: list[str]) -> None:
    """One line for each unit that runs."""
    for unit in (SOCKET, API, *daemons):
        status = run("systemctl", "show", unit, "--property", "StatusText", "--value").strip()
        state = run("systemctl", "show", unit, "--property", "ActiveState", "--value").strip()
        say(f"  {unit}: {state}{f' ({status})' if status else ''}")


def _list_installed(places: Places) -> list[Path]:
    """Our units on the box. A name alone makes none ours: `umrgen-tunnel.service` may well be the owner's."""
    paths = [places.units / name for name in sorted(_list_shipped(places))]
    return [path for path in paths if path.is_file() and not path.is_symlink()]


def _list_shipped(places: Places) -> set[str]:
    """The names of the units that this checkout or a release on the box has."""
    folders = [SHIPPED, *places.releases.glob("*/deploy/systemd")]
    return {path.name for folder in folders for path in folder.iterdir()}


def _list_daemons() -> list[str]:
    """Instances that systemd knows of: loaded ones, and those that start at boot."""
    plain = ("--plain", "--no-legend", "--no-pager")
    loaded = read("systemctl", "list-units", "--all", *plain, DAEMONS)
    enabled = read("systemctl", "list-unit-files", "--state=enabled", *plain, DAEMONS)
    names = {line.split()[0] for line in (loaded + enabled).splitlines() if line.strip()}
    return sorted(name for name in names if not name.startswith("umrgen-infer@."))
