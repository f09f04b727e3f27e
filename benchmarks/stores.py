"""Stores of many jobs, filled once by SQL and kept for the next run.

One job in ten waits, one in ten failed, the others are completed; twenty agents share them. The number of agents
is the same in every size, so that only the rows differ.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.service import Box
from umrgen_core.clock import SystemClock
from umrgen_core.schema import SCHEMA_VERSION, ensure_store
from umrgen_core.sqlite import Connection, open_reader, open_writer

AGENTS = 20
LATER_US = 4_102_444_800_000_000
"""The year 2100: nothing of these stores expires by itself."""
LATER_MS = 10**15
KEYS = "keys.json"

SQL = Path(__file__).parent / "sql"


@dataclass(frozen=True, slots=True)
class FilledStore:
    """A box whose store holds so many jobs, and the keys of its agents."""

    box: Box
    keys: list[str]

    def list_own_completed(self, most: int) -> list[str]:
        """Jobs of the first agent that are completed, from all over the store."""
        with opened(self.box, writes=False) as connection:
            rows = connection.execute(
                "SELECT id FROM jobs WHERE state = 'completed' AND agent_id = (SELECT min(agent_id) FROM jobs)"
            ).fetchall()
        return [row["id"] for row in rows][:: max(1, len(rows) // most)]


@contextmanager
def opened(box: Box, *, writes: bool = True) -> Iterator[Connection]:
    """A connection to a box's store past every lock: for preparation, while no process uses the store."""
    connection = (open_writer if writes else open_reader)(box.settings.storage.database)
    try:
        yield connection
    finally:
        connection.close()


@contextmanager
def open_store(folder: Path, jobs: int) -> Iterator[FilledStore]:
    """The store of so many jobs, made where it is not there yet. What runs over it ends with the block."""
    place = folder / "stores" / f"v{SCHEMA_VERSION}-{jobs}"
    data_dir = place / "data"
    if not (data_dir / KEYS).exists():
        shutil.rmtree(place, ignore_errors=True)
        _build(data_dir, jobs)
    for log in place.glob("*.out"):
        log.unlink()
    with ExitStack() as exits:
        yield FilledStore(Box(data_dir, exits), json.loads((data_dir / KEYS).read_text()))


def clear_jobs(box: Box) -> None:
    """An empty queue: what a job costs at its door grows a little with those that wait already."""
    with opened(box) as connection:
        connection.execute("DELETE FROM jobs")


def add_expired(box: Box, jobs: int, mark: str) -> None:
    """Completed jobs that have expired, with pictures in the store but not on the disk."""
    with opened(box) as connection:
        _run(connection, "expire", jobs, box.settings.default_model, mark)


def _build(data_dir: Path, jobs: int) -> None:
    with ExitStack() as exits:
        box = Box(data_dir, exits)
        ensure_store(data_dir, box.settings.storage.database)
        keys = box.make_keys(AGENTS)
        with opened(box) as connection:
            _fill(connection, jobs, box.settings.default_model)
        (data_dir / KEYS).write_text(json.dumps(keys))


def _fill(connection: Connection, jobs: int, model: str) -> None:
    connection.execute("PRAGMA cache_size=-1000000")
    _run(connection, "fill", jobs, model)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _run(connection: Connection, name: str, jobs: int, model: str, mark: str = "") -> None:
    first = connection.execute("SELECT min(id) FROM agents WHERE name = 'agent0'").fetchone()[0]
    values = {"jobs": jobs, "agents": AGENTS, "first": first, "model": model, "boot_id": SystemClock().boot_id}
    connection.execute("BEGIN IMMEDIATE")
    for statement in (SQL / f"{name}.sql").read_text(encoding="utf-8").split(";\n")[:-1]:
        connection.execute(statement, {**values, "mark": mark, "later_us": LATER_US, "later_ms": LATER_MS})
    connection.execute("COMMIT")
