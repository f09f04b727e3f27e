"""One look at the whole service: what runs, what waits, what ended last. Changes nothing, and reads little.

`umrgen-admin top`, `umrgen-admin stats`, `umrgen-admin doctor` and the console's admin page all show what is read here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from umrgen_core.clock import Clock
from umrgen_core.config import Settings
from umrgen_core.jobs import JobState
from umrgen_core.reader import Reader
from umrgen_core.sqlite import Row
from umrgen_core.worker_store import WorkerState

MOST_RUNNING = 64
MOST_FINISHED = 12
MOST_COUNTED = 10_000
"""Queued jobs, webhooks and jobs of the last hour are counted no further: a look never costs more than this."""
BUCKET_S = 60
BUCKETS = 60


@dataclass(frozen=True, slots=True)
class WorkerLine:
    """One inference daemon. `age_s` is the time since it was last seen; None means in another boot."""

    id: str
    pid: int
    state: WorkerState
    models: tuple[str, ...]
    started_at_us: int
    seen_at_us: int
    age_s: float | None

    def is_heard(self, silent_s: float) -> bool:
        """Whether it was seen within `silent_s` seconds."""
        return self.age_s is not None and self.age_s <= silent_s


@dataclass(frozen=True, slots=True)
class RunningLine:
    """A job that a worker holds. `lease_left_s` is negative once the worker is overdue; None: of another boot."""

    id: str
    agent: str
    model: str
    worker_id: str
    step: int
    steps: int
    width: int
    height: int
    attempts: int
    started_at_us: int
    cancel_requested: bool
    lease_left_s: float | None


@dataclass(frozen=True, slots=True)
class QueueLine:
    """What waits for one model, and the job that came first."""

    model: str
    jobs: int
    agents: int
    oldest_id: str
    oldest_at_us: int


@dataclass(frozen=True, slots=True)
class FinishedLine:
    """A job that has ended. `queued_s` and `run_s` are seconds; a job that never ran has no `run_s`."""

    id: str
    agent: str
    model: str
    state: JobState
    width: int
    height: int
    steps: int
    queued_s: float
    run_s: float | None
    finished_at_us: int
    error_code: str | None


@dataclass(frozen=True, slots=True)
class Usage:
    """What all agents keep together."""

    agents: int
    references: int
    reference_bytes: int
    output_bytes: int


@dataclass(frozen=True, slots=True)
class Overview:
    """The service as of `at_us`. Counts stop at MOST_COUNTED."""

    at_us: int
    paused_at_us: int | None
    draining_at_us: int | None
    workers: tuple[WorkerLine, ...]
    running: tuple[RunningLine, ...]
    queue: tuple[QueueLine, ...]
    finished: tuple[FinishedLine, ...]
    """The newest first."""
    ended_per_minute: tuple[int, ...]
    """Jobs that ended in each of the last sixty minutes, the oldest first; the last is still under way."""
    usage: Usage
    webhooks_due: int
    webhooks_failed: int

    @property
    def queued(self) -> int:
        """Jobs that wait, over all models."""
        return sum(line.jobs for line in self.queue)

    @property
    def oldest_queued_at_us(self) -> int | None:
        """When the job that has waited longest was accepted."""
        return min((line.oldest_at_us for line in self.queue), default=None)


class OverviewReader:
    """Makes overviews through a process's reader."""

    def __init__(self, reader: Reader, statements: Any, clock: Clock, settings: Settings) -> None:
        self._reader = reader
        self._sql = statements
        self._clock = clock
        self._retention_us = int(settings.storage.retention_s * 1e6)

    async def read(self, most_finished: int = MOST_FINISHED) -> Overview:
        """The service now. Raises Unavailable when the store cannot be read."""
        sql, now_us = self._sql, self._clock.wall_us()
        control = await self._reader.one(sql.get_queue_control.sql)
        usage = await self._one(sql.overview_usage.sql)
        webhooks = await self._one(sql.overview_webhooks.sql, most=MOST_COUNTED)
        return Overview(
            at_us=now_us,
            paused_at_us=control["paused_at_us"] if control else None,
            draining_at_us=control["draining_at_us"] if control else None,
            workers=tuple(map(self._to_worker, await self._reader.all(sql.list_workers.sql))),
            running=tuple(map(self._to_running, await self._reader.all(sql.overview_running.sql, most=MOST_RUNNING))),
            queue=tuple(map(_to_queue, await self._reader.all(sql.overview_queue.sql, most=MOST_COUNTED))),
            finished=tuple(map(_to_finished, await self._reader.all(sql.overview_finished.sql, most=most_finished))),
            ended_per_minute=await self._count_ended(now_us),
            usage=Usage(usage["agents"], usage["reference_count"], usage["reference_bytes"], usage["output_bytes"]),
            webhooks_due=webhooks["due"],
            webhooks_failed=webhooks["failed"],
        )

    async def _one(self, sql: str, **parameters: object) -> Row:
        """The row of a statement that always has one."""
        return (await self._reader.all(sql, **parameters))[0]

    async def _count_ended(self, now_us: int) -> tuple[int, ...]:
        """From the index of expiries, since there is none of ends: the time between the two is the retention."""
        began_us = now_us // (BUCKET_S * 1_000_000) * BUCKET_S * 1_000_000 - (BUCKETS - 1) * BUCKET_S * 1_000_000
        rows = await self._reader.all(
            self._sql.overview_ended.sql,
            since_us=began_us + self._retention_us,
            bucket_us=BUCKET_S * 1_000_000,
            most=MOST_COUNTED,
        )
        counted = {row["bucket"]: row["jobs"] for row in rows}
        return tuple(counted.get(bucket, 0) for bucket in range(BUCKETS))

    def _to_worker(self, row: Row) -> WorkerLine:
        same_boot = row["seen_boot_id"] == self._clock.boot_id
        return WorkerLine(
            id=row["id"],
            pid=row["pid"],
            state=WorkerState(row["state"]),
            models=tuple(json.loads(row["models"])),
            started_at_us=row["started_at_us"],
            seen_at_us=row["seen_at_us"],
            age_s=(self._clock.boot_ms() - row["seen_boot_ms"]) / 1000 if same_boot else None,
        )

    def _to_running(self, row: Row) -> RunningLine:
        same_boot = row["lease_boot_id"] == self._clock.boot_id
        names = ("id", "agent", "model", "worker_id", "step", "steps", "width", "height", "attempts", "started_at_us")
        return RunningLine(
            **{name: row[name] for name in names},
            cancel_requested=row["cancel_requested_at_us"] is not None,
            lease_left_s=(row["lease_until_boot_ms"] - self._clock.boot_ms()) / 1000 if same_boot else None,
        )


def _to_queue(row: Row) -> QueueLine:
    return QueueLine(row["model"], row["jobs"], row["agents"], row["oldest_id"], row["created_at_us"])


def _to_finished(row: Row) -> FinishedLine:
    began_us = row["started_at_us"]
    names = ("id", "agent", "model", "width", "height", "steps", "finished_at_us", "error_code")
    return FinishedLine(
        **{name: row[name] for name in names},
        state=JobState(row["state"]),
        queued_s=max((began_us or row["finished_at_us"]) - row["created_at_us"], 0) / 1e6,
        run_s=None if began_us is None else max(row["finished_at_us"] - began_us, 0) / 1e6,
    )
