"""What the service is on this machine: bytes on disk, and the processes that have the store open."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from umrgen_core.disk import BALLAST_NAME
from umrgen_core.presence import list_living
from umrgen_core.sections import StorageSettings

MEMORY = Path("/proc/meminfo")


@dataclass(frozen=True, slots=True)
class Footprint:
    """Sizes in bytes. `free_bytes` is what this user may still write; `has_ballast` whether it is laid in."""

    database_bytes: int
    wal_bytes: int
    free_bytes: int
    total_bytes: int
    has_ballast: bool


@dataclass(frozen=True, slots=True)
class Process:
    """A living process that has the store open. `kind` is "api", "infer", or "" for one that nobody can wake."""

    pid: int
    kind: str
    started_at_us: int


def read_footprint(storage: StorageSettings) -> Footprint:
    """The sizes now. Blocks for microseconds. Raises OSError where the data directory cannot be looked at."""
    status = os.statvfs(storage.data_dir)
    return Footprint(
        database_bytes=size_of(storage.database),
        wal_bytes=size_of(wal_path(storage.database)),
        free_bytes=status.f_bavail * status.f_frsize,
        total_bytes=status.f_blocks * status.f_frsize,
        has_ballast=(storage.data_dir / BALLAST_NAME).exists(),
    )


def read_available_memory() -> int:
    """Bytes of the computer's memory that a process may still take without others being pushed out."""
    found = re.search(r"^MemAvailable: +(\d+) kB$", MEMORY.read_text(encoding="ascii"), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def wal_path(database: Path) -> Path:
    """The write-ahead log beside the database."""
    return database.with_name(database.name + "-wal")


def size_of(path: Path) -> int:
    """Bytes of a file; 0 where there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def list_processes(data_dir: Path) -> list[Process]:
    """The living, the oldest first: their markers tell who lives, their sockets what they are."""
    kinds = {_pid_of(path.stem.partition("-")[2]): path.stem.partition("-")[0] for path in _list_sockets(data_dir)}
    found = []
    for marker in list_living(data_dir):
        pid = _pid_of(marker.stem)
        try:
            started_at_us = marker.stat().st_mtime_ns // 1000
        except FileNotFoundError:  # withdrawn in between
            continue
        found.append(Process(pid, kinds.get(pid, ""), started_at_us))
    return sorted(found, key=lambda process: process.started_at_us)


def _list_sockets(data_dir: Path) -> list[Path]:
    return list((data_dir / "run").glob("*.sock"))


def _pid_of(process_id: str) -> int:
    """The pid in `new_process_id`; 0 for a name that has none."""
    first = process_id.partition("-")[0]
    return int(first) if first.isascii() and first.isdigit() else 0
