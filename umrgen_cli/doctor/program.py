"""What the service is made of: Python, its packages, SQLite."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from umrgen_cli.doctor.findings import Finding, Patient, good, problem, warning
from umrgen_core.errors import ConfigError
from umrgen_core.sqlite import assert_safe_sqlite, sqlite_version

PYTHON = (3, 11)
DISTRIBUTION = "umrgen"
CONSTRAINTS = Path(__file__).resolve().parents[2] / "constraints.txt"
MOST_NAMED = 4


def check_python(_: Patient) -> Iterator[Finding]:
    """The one version that this release is made for."""
    seen = f"{sys.version.split()[0]} in {sys.prefix}"
    if sys.version_info[:2] == PYTHON:
        yield good("python", seen)
    else:
        yield problem("python", seen, f"make the virtual environment with Python {PYTHON[0]}.{PYTHON[1]}")


def check_sqlite(_: Patient) -> Iterator[Finding]:
    """Free of the bug that corrupts a database of two writers."""
    try:
        assert_safe_sqlite()
    except ConfigError as error:
        yield problem("sqlite", error.message, "do not start either process before")
    else:
        yield good("sqlite", f"{sqlite_version}, without the WAL-reset bug")


def check_packages(_: Patient, constraints: Path = CONSTRAINTS) -> Iterator[Finding]:
    """What is required is there, and what is pinned has the version that was tested."""
    if missing := [name for name in _list_required() if _find_version(name) is None]:
        yield problem("packages", f"not installed: {_name(missing)}", "run 'make setup', or install this version again")
    if not constraints.is_file():
        yield good("packages", "all that are required; no list of pinned versions beside the program")
        return
    pins = re.findall(r"^([\w.-]+)==(\S+)", constraints.read_text(encoding="utf-8"), re.MULTILINE)
    found = [(name, pin, _find_version(name)) for name, pin in pins]
    other = [f"{name} {version} for {pin}" for name, pin, version in found if version and not _same(version, pin)]
    if other:
        advice = "run 'make setup': other versions are not what was tested"
        yield warning("packages", f"{len(other)} differ from constraints.txt: {_name(other)}", advice)
    elif not missing:
        count = sum(version is not None for _, _, version in found)
        yield good("packages", f"{count} installed, each of the version that is pinned")


def _list_required() -> list[str]:
    """What the project itself requires, without extras."""
    required = metadata.requires(DISTRIBUTION) or []
    return [re.split(r"[^\w.-]", line)[0] for line in required if "extra ==" not in line]


def _find_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _same(version: str, pin: str) -> bool:
    """Builds of torch say for which device they are: 2.13.0+cpu."""
    return version.partition("+")[0] == pin.partition("+")[0]


def _name(items: list[str]) -> str:
    rest = len(items) - MOST_NAMED
    return ", ".join(items[:MOST_NAMED]) + (f" and {rest} more" if rest > 0 else "")
