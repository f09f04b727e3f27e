"""Workers in the store: who lives, and which models each can paint with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from umrgen_core.database import Database
from umrgen_core.sqlite import Connection


class WorkerState(StrEnum):
    """What a worker is doing with its models."""

    LOADING = "loading"
    """The process is up, its models are not."""
    READY = "ready"
    """Claims jobs."""
    STOPPING = "stopping"
    """Finishes its run and claims no more."""


@dataclass(frozen=True, slots=True)
class Worker:
    """One inference daemon.

    `models` are those it serves, less what it cannot load at present. `age_s` is the time since it was last
    seen; None means in another boot.
    """

    id: str
    pid: int
    state: WorkerState
    models: tuple[str, ...]
    age_s: float | None


class WorkerStore:
    """Rows of `workers`."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def announce(self, worker_id: str, pid: int, state: WorkerState, models: Sequence[str]) -> None:
        """Say that the worker lives."""

        def work(connection: Connection) -> None:
            self._db.statements.put_worker(
                connection,
                id=worker_id,
                pid=pid,
                state=state,
                models=json.dumps(list(models)),
                now_us=self._db.clock.wall_us(),
                boot_id=self._db.clock.boot_id,
                now_boot_ms=self._db.clock.boot_ms(),
            )

        await self._db.writer.run(work)

    async def withdraw(self, worker_id: str) -> None:
        """The worker has stopped."""
        await self._db.writer.run(lambda connection: self._db.statements.delete_worker(connection, id=worker_id))

    async def forget_lost(self, silent_s: float) -> None:
        """Delete the rows of workers not seen for `silent_s` seconds or since the last boot."""
        clock = self._db.clock

        def work(connection: Connection) -> None:
            self._db.statements.delete_lost_workers(
                connection, boot_id=clock.boot_id, seen_before_boot_ms=clock.boot_ms() - int(silent_s * 1000)
            )

        await self._db.writer.run(work)

    async def list_all(self) -> list[Worker]:
        """Every worker that has not withdrawn."""
        rows = await self._db.reader.all(self._db.statements.list_workers.sql)
        boot_id, now_ms = self._db.clock.boot_id, self._db.clock.boot_ms()
        return [
            Worker(
                row["id"],
                row["pid"],
                WorkerState(row["state"]),
                tuple(json.loads(row["models"])),
                (now_ms - row["seen_boot_ms"]) / 1000 if row["seen_boot_id"] == boot_id else None,
            )
            for row in rows
        ]
