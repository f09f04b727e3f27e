"""What the web tier does besides answering: recovery, expiry, orphans, disk and scrub.

Each is a task of its own that survives a store or disk that is busy; all work is bounded per round.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from umrgen_api.orphans import OrphanSweep
from umrgen_api.services import Services
from umrgen_core.clock import LeapWatch
from umrgen_core.errors import SchemaError, Unavailable
from umrgen_core.files import Shelf
from umrgen_core.logs import get_logger, log_death
from umrgen_core.schema import SCHEMA_VERSION
from umrgen_core.wakeup import Listener
from umrgen_core.writer import SCHEMA_CHANGED

RECOVERY_INTERVAL_S = 1.0
SCHEMA_INTERVAL_S = 1.0
EXPIRY_INTERVAL_S = 5.0
CHANGES_INTERVAL_S = 1.0
ORPHAN_INTERVAL_S = 5.0
DISK_INTERVAL_S = 1.0
LEAP_TOLERANCE_S = 300.0
KEPT_SHELVES = (Shelf.OUTPUTS, Shelf.REFERENCES)

LOG = get_logger("upkeep")


class Upkeep:
    """Owns the tasks."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._tasks: list[asyncio.Task[None]] = []
        self._leaps = LeapWatch(services.clock, LEAP_TOLERANCE_S)
        self._paused = False
        self._orphans = OrphanSweep(services)
        self._scrubbed = dict.fromkeys(KEPT_SHELVES, 0)

    async def start(self) -> None:
        """Make the store ready, at once where it was left in good order, then begin the rounds."""
        prepared = asyncio.create_task(self._prepare())
        self._tasks.append(prepared)
        if not self._services.database.integrity.is_checking:
            await asyncio.wait({prepared}, timeout=self._services.settings.storage.lock_timeout_s)
        services = self._services
        scrub_s = self._services.settings.storage.scrub_interval_s
        rounds: list[tuple[Callable[[], Awaitable[None]], float]] = [
            (self.recover, RECOVERY_INTERVAL_S),
            (self.expire, EXPIRY_INTERVAL_S),
            (services.changes.poll, CHANGES_INTERVAL_S),
            (self._orphans.sweep, ORPHAN_INTERVAL_S),
            (self.scrub, scrub_s),
        ]
        at_once = [(self.tend_disk, DISK_INTERVAL_S), (self.watch_schema, SCHEMA_INTERVAL_S)]
        self._tasks += [asyncio.create_task(_repeat(work, interval_s)) for work, interval_s in at_once]
        self._tasks += [asyncio.create_task(_repeat(work, interval_s, prepared)) for work, interval_s in rounds]
        for task in self._tasks:
            task.add_done_callback(log_death)

    async def stop(self) -> None:
        """End every task."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            await asyncio.wait({task})

    async def _prepare(self) -> None:
        services = self._services
        try:
            await services.database.integrity.wait()
        except SchemaError:  # logged where it was found; the web tier stays up to say so
            await asyncio.Event().wait()
        while True:
            try:
                await services.agents.set_development_key(services.settings.auth.development_key)
                return await services.recovery.adopt_queue()
            except Unavailable as error:  # as on a full disk, which the other rounds may yet heal
                LOG.warning("start_delayed", error=error.message)
            await asyncio.sleep(RECOVERY_INTERVAL_S)

    async def watch_schema(self) -> None:
        """Refuse reads while the schema is not ours; the writer looks for itself at each transaction."""
        ours = await self._services.database.reader.read_version() == SCHEMA_VERSION
        self._services.database.reader.refuse(None if ours else SCHEMA_CHANGED)

    async def recover(self) -> None:
        """End or requeue what lost its worker, whether or not any worker lives."""
        for recovered in await self._services.recovery.recover_lost():
            self._services.wakeup.send(Listener.INFER, "queued")
            self._services.wakeup.send(Listener.API, recovered.job_id)

    async def expire(self) -> None:
        """Delete what is past its time: rows first, then their files. Waits while the clock is not to be trusted."""
        if self._leaps.has_leapt() is not self._paused:
            self._paused = not self._paused
            LOG.warning("retention_paused" if self._paused else "retention_resumed")
        if self._paused:
            return
        for doomed in await self._services.retention.expire():
            await asyncio.to_thread(self._services.files.delete, doomed.shelf, doomed.disk_name)

    async def tend_disk(self) -> None:
        """Keep or release the ballast."""
        done = await asyncio.to_thread(self._services.disk.tend)
        if done is not None:
            LOG.warning("ballast", action=done)

    async def scrub(self) -> None:
        """Read one kept file whole and compare it with its row."""
        for shelf in KEPT_SHELVES:
            known = await self._services.retention.next_file(shelf, self._scrubbed[shelf])
            self._scrubbed[shelf] = 0 if known is None else known.id
            if known is None:
                continue
            whole = await asyncio.to_thread(self._look_again, shelf, known.disk_name, known.sha256)
            if not whole and await self._services.retention.is_named(shelf, known.disk_name):
                LOG.error("file_damaged", shelf=shelf.value, disk_name=known.disk_name)

    def _look_again(self, shelf: Shelf, disk_name: str, sha256: str) -> bool:
        return self._services.verified.is_whole(shelf, disk_name, sha256, look_again=True)


async def _repeat(
    work: Callable[[], Awaitable[None]], interval_s: float, prepared: asyncio.Task[None] | None = None
) -> None:
    if prepared is not None:
        await asyncio.wait({prepared})
    while True:
        try:
            await work()
        except (Unavailable, OSError) as error:
            LOG.warning("upkeep_delayed", error=str(error))
        await asyncio.sleep(interval_s)
