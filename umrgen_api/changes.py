"""Who waits for which job. A datagram wakes at once; a slow look at the store's events is the truth.

A waiter registers first and reads the row afterwards, so that no change falls between.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from umrgen_core.errors import RateLimit
from umrgen_core.event_store import EventStore

MAX_WAITERS = 50
"""Waiting requests of one agent."""


class Watch:
    """One waiting request's view of one job."""

    __slots__ = ("_changes", "_event", "job_id")

    def __init__(self, changes: Changes, job_id: str) -> None:
        self._changes = changes
        self._event = asyncio.Event()
        self.job_id = job_id

    def turn_to(self, job_id: str) -> None:
        """Watch another job from now on: a request that waits for several still counts as one."""
        self._changes.move(self, job_id)

    def wake(self) -> None:
        """Something has changed, or the server stops."""
        self._event.set()

    async def wait(self, seconds: float) -> bool:
        """True when the job may have changed, False after `seconds` and once the server stops."""
        if self._changes.stopping or seconds <= 0:
            return False
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._event.wait()
        woken = self._event.is_set() and not self._changes.stopping
        self._event.clear()
        return woken


class Changes:
    """All who wait in this process."""

    def __init__(self, events: EventStore) -> None:
        self._events = events
        self._watches: defaultdict[str, set[Watch]] = defaultdict(set)
        self._agents: Counter[int] = Counter()
        self._seen: int | None = None
        self.stopping = False

    @contextmanager
    def watch(self, agent_id: int, job_id: str) -> Iterator[Watch]:
        """Watch a job for as long as the block lasts. Raises RateLimit when the agent waits too often already."""
        if self._agents[agent_id] >= MAX_WAITERS:
            raise RateLimit(
                f"You have {MAX_WAITERS} requests waiting already. Let some end, or poll without waiting.",
                extra={"limit": MAX_WAITERS, "kind": "waiting"},
                retry_after_s=1.0,
            )
        watch = Watch(self, job_id)
        self._watches[job_id].add(watch)
        self._agents[agent_id] += 1
        try:
            yield watch
        finally:
            self._agents[agent_id] -= 1
            if not self._agents[agent_id]:
                del self._agents[agent_id]
            self._drop(watch)

    def count_waiting(self) -> int:
        """How many requests and streams watch a job. Any thread may ask."""
        return sum(tuple(self._agents.values()))

    def move(self, watch: Watch, job_id: str) -> None:
        """Let a watch wake for another job."""
        self._drop(watch)
        watch.job_id = job_id
        self._watches[job_id].add(watch)

    def _drop(self, watch: Watch) -> None:
        self._watches[watch.job_id].discard(watch)
        if not self._watches[watch.job_id]:
            del self._watches[watch.job_id]

    def notify(self, job_id: str) -> None:
        """Wake those who wait for a job."""
        for watch in tuple(self._watches.get(job_id, ())):
            watch.wake()

    async def poll(self) -> None:
        """Wake those whose jobs changed since the last poll, whatever became of the hints."""
        if self._seen is None:
            self._seen = await self._events.find_newest()
            return
        more = True
        while more:
            self._seen, changed, more = await self._events.list_changed(self._seen)
            for job_id in changed & self._watches.keys():
                self.notify(job_id)

    def stop(self) -> None:
        """Answer everybody with things as they stand."""
        self.stopping = True
        for watches in tuple(self._watches.values()):
            for watch in tuple(watches):
                watch.wake()
