"""What a process of the service tells systemd while it runs: what it does, what waits, and that it lives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from umrgen_core.database import Database
from umrgen_core.errors import Unavailable
from umrgen_core.systemd import Notifier

STATUS_INTERVAL_S = 2.0
MOST_COUNTED = 1000


@dataclass(frozen=True, slots=True)
class Work:
    """What the store holds for now, each counted no further than MOST_COUNTED."""

    running: int
    queued: int
    paused: bool = False
    draining: bool = False

    @property
    def queue(self) -> str:
        """What waits, in words: "queue empty", "queue 12", "queue 1000+, paused"."""
        count = f"queue {self.queued}" if self.queued else "queue empty"
        if self.queued >= MOST_COUNTED:
            count += "+"
        return ", ".join([count, *(["paused"] if self.paused else []), *(["draining"] if self.draining else [])])


Describe = Callable[[Work], str]


class Supervision:
    """Speaks to systemd for one process with the store open."""

    def __init__(self, notifier: Notifier, database: Database) -> None:
        self._notifier = notifier
        self._db = database

    def beat(self) -> None:
        """A sign of life, from whatever thread does the work.

        Withheld while this process has kept others from writing for longer than systemd waits: a writer that is
        stuck inside a transaction stops them all, and only the end of its process frees the lock.
        """
        if self._db.writer.held_s <= self._notifier.watchdog_s:
            self._notifier.beat()

    async def tell_status(self, describe: Describe) -> None:
        """Keep the line of status true until cancelled."""
        while self._notifier.is_heard:
            await self._tell(describe)
            await asyncio.sleep(STATUS_INTERVAL_S)

    async def live(self, describe: Describe) -> None:
        """As `tell_status`, with the signs of life of a process whose work is done by the event loop.

        Each follows a look into the store: an event loop that is stuck gives none, nor does one whose reader is.
        A store that cannot be read or written for a while is no reason to end a process that says so to its clients.
        """
        while self._notifier.is_heard:
            await self._db.reader.read_version()
            self.beat()
            await self._tell(describe)
            await asyncio.sleep(min(STATUS_INTERVAL_S, self._notifier.watchdog_s / 4 or STATUS_INTERVAL_S))

    async def _tell(self, describe: Describe) -> None:
        try:
            self._notifier.status(describe(await self._count()))
        except Unavailable as error:
            self._notifier.status(error.message)

    async def _count(self) -> Work:
        row = await self._db.reader.one(self._db.statements.count_work.sql, most=MOST_COUNTED)
        if row is None:
            return Work(0, 0)
        return Work(row["running"], row["queued"], row["paused_at_us"] is not None, row["draining_at_us"] is not None)
