"""The machine and the versions that a figure belongs to."""

from __future__ import annotations

import os
import platform
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import psutil
from pysqlite3.dbapi2 import connect

from benchmarks.yardstick import DurableHop

SYNCS = 300
PACKAGES = ("aiohttp", "aiosqlite", "pillow", "isal", "torch", "diffusers")


def describe_machine(folder: Path) -> dict[str, str]:
    """What a reader must know to compare; the disk is that of `folder`."""
    return {
        "processor": f"{os.cpu_count()} of {_read_processor()}",
        "memory": f"{psutil.virtual_memory().total / 1e9:.0f} GB",
        "kernel": platform.release(),
        "fdatasync of one page, p50": f"{time_sync_ms(folder):.2f} ms",
        "Python": platform.python_version(),
        "SQLite": _read_sqlite_version(),
        **{name: version(name) for name in PACKAGES},
    }


def describe_moment() -> dict[str, str]:
    """When something was measured, and how busy the machine was with other things just before."""
    return {
        "when": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "load average": f"{os.getloadavg()[0]:.1f}",
    }


def time_sync_ms(folder: Path, syncs: int = SYNCS) -> float:
    """Median milliseconds of writing one page over an old one and syncing it."""
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder) as place, DurableHop(Path(place)) as hop:
        taken = []
        for _ in range(syncs):
            began = time.perf_counter()
            hop.sync_page()
            taken.append(time.perf_counter() - began)
    return median(taken) * 1000


def _read_sqlite_version() -> str:
    connection = connect(":memory:")
    try:
        return str(connection.execute("SELECT sqlite_version()").fetchone()[0])
    finally:
        connection.close()


def _read_processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
