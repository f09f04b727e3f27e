"""The state of queue, jobs, workers, store and disk, read when somebody asks, at most every few seconds.

It is read in the thread that asks, over a connection of its own: neither the event loop nor the reader waits for it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from umrgen_core.backup import LAST_NAME
from umrgen_core.clock import Clock
from umrgen_core.config import Settings
from umrgen_core.footprint import Footprint, read_footprint
from umrgen_core.jobs import JobState
from umrgen_core.metrics.job_count import JobCount
from umrgen_core.metrics.labels import Models
from umrgen_core.schema import SCHEMA_VERSION, read_version
from umrgen_core.sqlite import Connection, Row, SqliteError, open_reader
from umrgen_core.worker_store import WorkerState

KEPT_MS = 3000
"""What was read is good for this long, however often it is asked for."""
MOST_COUNTED = 100_000
"""Of a queue or an outbox; more than these are told as these."""
NEWEST_JOBS = 1000
"""Among which lost devices are looked for."""
MISSED_HEARTBEATS = 3
"""A worker that has missed this many is not counted, as for /readyz."""


@dataclass(slots=True)
class StoreState:
    """What was read of the store."""

    jobs: dict[str, int]
    queue: dict[str, tuple[int, float]]
    """For each model how many wait, and for how many seconds the first of them has."""
    workers: dict[str, int]
    paused: bool
    draining: bool
    webhooks: dict[str, int]
    device_losses: int


@dataclass(slots=True)
class State:
    """What was read, and when in boot time. Without `store` it could not be read; without `disk` nor could that."""

    at_ms: int
    store: StoreState | None = None
    disk: Footprint | None = None
    backed_up_at_s: float | None = None
    families: list[Metric] = field(default_factory=list)


class StoreReadings(Collector):
    """Gauges of the whole service. One process of it shows them: the web tier."""

    def __init__(self, settings: Settings, clock: Clock, statements: Any) -> None:
        self._settings = settings
        self._clock = clock
        self._statements = statements
        self._models = Models(settings.served_models)
        self._lock = threading.Lock()
        self._count = JobCount(settings.storage.database, statements)
        self._state: State | None = None

    def register(self, registry: CollectorRegistry) -> None:
        """Be asked whenever the registry is."""
        registry.register(self)

    def describe(self) -> Iterable[Metric]:
        """Nothing: a registry need not read the store to learn the names."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Every gauge, as of now or a moment ago."""
        with self._lock:  # several who ask at once are given one reading
            now_ms = self._clock.boot_ms()
            if self._state is None or not 0 <= now_ms - self._state.at_ms < KEPT_MS:
                self._state = self._read(now_ms)
            return self._state.families

    def _read(self, now_ms: int) -> State:
        state = State(now_ms)
        try:
            state.disk = read_footprint(self._settings.storage)
            state.backed_up_at_s = _find_time(self._settings.storage.data_dir / LAST_NAME)
            with closing(open_reader(self._settings.storage.database)) as connection:
                if read_version(connection) == SCHEMA_VERSION:
                    state.store = self._read_store(connection, now_ms)
        except (SqliteError, OSError):  # told by umrgen_store_readable, and logged by whoever needs the store
            pass
        state.families = list(self._render(state))
        return state

    def _read_store(self, connection: Connection, now_ms: int) -> StoreState:
        statements, settings = self._statements, self._settings
        rows = list(statements.monitor_queue(connection, most=MOST_COUNTED))
        control = statements.monitor_control(connection)
        webhooks = statements.monitor_webhooks(connection, most=MOST_COUNTED)
        queue = self._sum_up_queue(rows, now_ms + int(settings.jobs.queue_ttl_s * 1000))
        jobs = {
            **self._count.read_ended(),
            JobState.QUEUED: sum(row["jobs"] for row in rows),
            JobState.RUNNING: statements.monitor_running(connection)["jobs"],
        }
        return StoreState(
            jobs=jobs,
            queue=queue,
            workers=self._count_workers(statements.monitor_workers(connection), now_ms),
            paused=control["paused_at_us"] is not None,
            draining=control["draining_at_us"] is not None,
            webhooks={"due": webhooks["due"], "failed": webhooks["failed"]},
            device_losses=statements.monitor_device_losses(connection, newest=NEWEST_JOBS)["losses"],
        )

    def _sum_up_queue(self, rows: Iterable[Row], fresh_until_ms: int) -> dict[str, tuple[int, float]]:
        queue = dict.fromkeys(self._models.names, (0, 0.0))
        for row in rows:
            label = self._models.label(row["model"])
            jobs, oldest_s = queue.get(label, (0, 0.0))
            waits_s = max((fresh_until_ms - row["queue_until_boot_ms"]) / 1000, 0.0)
            queue[label] = (jobs + row["jobs"], max(oldest_s, waits_s))
        return queue

    def _count_workers(self, rows: Iterable[Row], now_ms: int) -> dict[str, int]:
        silent_ms = self._settings.jobs.heartbeat_s * 1000 * MISSED_HEARTBEATS
        counts = dict.fromkeys(map(str, WorkerState), 0)
        for row in rows:
            if row["seen_boot_id"] == self._clock.boot_id and now_ms - row["seen_boot_ms"] <= silent_ms:
                counts[row["state"]] += 1
        return counts

    def _render(self, state: State) -> Iterable[Metric]:
        yield _gauge("umrgen_store_readable", "1 while the store answers and has the right schema.", state.store)
        yield _gauge("umrgen_queue_limit", "[limits] queued_jobs.", self._settings.limits.queued_jobs)
        yield _gauge("umrgen_disk_floor_bytes", "[storage] disk_floor_bytes.", self._settings.storage.disk_floor_bytes)
        if state.store is not None:
            yield from _render_store(state.store)
        if state.disk is not None:
            yield from _render_disk(state.disk)
        if state.backed_up_at_s is not None:
            what = "When the newest backup was finished, since 1970."
            yield _gauge("umrgen_backup_timestamp_seconds", what, state.backed_up_at_s)


def _render_store(store: StoreState) -> Iterable[Metric]:
    yield _gauges("umrgen_jobs", "Jobs that are kept, by state.", "state", store.jobs)
    depths = {model: jobs for model, (jobs, _) in store.queue.items()}
    yield _gauges("umrgen_queue_jobs", f"Queued jobs, counted up to {MOST_COUNTED} in all.", "model", depths)
    ages = {model: oldest_s for model, (_, oldest_s) in store.queue.items()}
    yield _gauges("umrgen_queue_oldest_seconds", "How long the first of the queued jobs has waited.", "model", ages)
    yield _gauge("umrgen_queue_paused", "1 while the owner has paused the queue.", store.paused)
    yield _gauge("umrgen_queue_draining", "1 while the owner lets the queue run empty.", store.draining)
    yield _gauges("umrgen_workers", "Workers seen lately, by state.", "state", store.workers)
    what = f"Webhooks to be tried, and given up but kept, each counted up to {MOST_COUNTED}."
    yield _gauges("umrgen_webhooks", what, "state", store.webhooks)
    what = f"Runs among the newest {NEWEST_JOBS} jobs that took the device down."
    yield _gauge("umrgen_recent_device_losses", what, store.device_losses)


def _render_disk(disk: Footprint) -> Iterable[Metric]:
    yield _gauge("umrgen_store_database_bytes", "Size of the database file.", disk.database_bytes)
    yield _gauge("umrgen_store_wal_bytes", "Size of the write-ahead log.", disk.wal_bytes)
    yield _gauge("umrgen_disk_free_bytes", "Free disk where the data directory is.", disk.free_bytes)
    yield _gauge("umrgen_disk_total_bytes", "Size of the file system of the data directory.", disk.total_bytes)
    yield _gauge("umrgen_disk_ballast_present", "1 while the ballast is laid in.", disk.has_ballast)


def _find_time(path: Path) -> float | None:
    """When the file was last touched; None where there is none."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return None


def _gauge(name: str, what: str, value: object) -> Metric:
    number = value if isinstance(value, int | float) else value is not None
    return GaugeMetricFamily(name, what, value=float(number))


def _gauges(name: str, what: str, label: str, values: dict[str, int] | dict[str, float]) -> Metric:
    family = GaugeMetricFamily(name, what, labels=[label])
    for value, number in values.items():
        family.add_metric([str(value)], float(number))
    return family
