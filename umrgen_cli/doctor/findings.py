"""What a check says, and what it is given to look at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from umrgen_cli.doctor.addresses import Address
from umrgen_core.clock import Clock
from umrgen_core.config import Settings
from umrgen_core.overview import Overview
from umrgen_core.worker_store import WorkerState

MISSED_HEARTBEATS = 3
"""A worker that has missed this many is not counted on."""


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    """As it should be."""
    WARNING = "warning"
    """The service runs, but not as well or as safely as it could, or not for long."""
    PROBLEM = "problem"
    """Something does not work, or is about to lose data."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was seen in one place, and what to do about it."""

    name: str
    level: Level
    seen: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Patient:
    """The install under examination.

    `settings` are those of the file as far as it could be read, with defaults in the place of the rest;
    `config_problems` say what could not. `overview` is None where the store cannot be read: `store_problem` says why.
    """

    config: Path
    settings: Settings
    clock: Clock
    config_problems: tuple[str, ...] = ()
    overview: Overview | None = None
    store_problem: str = ""
    deep: bool = False
    backups: Path = Path("/var/backups/umrgen")
    listening: tuple[Address, ...] = ()
    """systemd's sockets for the web tier; empty where it opens its own."""

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where the web tier is to be found."""
        return self.listening or (Address(self.settings.api.host, self.settings.api.port),)

    @property
    def is_loading(self) -> bool:
        """Whether a worker is loading its model: much is not ready yet, and nothing is wrong."""
        workers = self.overview.workers if self.overview else ()
        silent_s = self.settings.jobs.heartbeat_s * MISSED_HEARTBEATS
        return any(w.state is WorkerState.LOADING and w.is_heard(silent_s) for w in workers)


Check = Callable[[Patient], Iterator[Finding]]


def good(name: str, seen: str) -> Finding:
    """Nothing to do."""
    return Finding(name, Level.OK, seen)


def warning(name: str, seen: str, advice: str) -> Finding:
    """Something to see to."""
    return Finding(name, Level.WARNING, seen, advice)


def problem(name: str, seen: str, advice: str) -> Finding:
    """Something to see to now."""
    return Finding(name, Level.PROBLEM, seen, advice)
