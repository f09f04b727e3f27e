"""Holding a claim: heartbeats, progress, and the word that it is lost, cancelled or to be given back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from types import TracebackType

from umrgen_core.claim_store import ClaimStore
from umrgen_core.errors import StaleClaim, Unavailable
from umrgen_core.jobs import Claim
from umrgen_core.logs import get_logger

LOG = get_logger("lease")
PROGRESS_INTERVAL_S = 0.1
"""Steps that come faster are not all written: each write takes the processor from the pipeline, and nobody looks."""


class StopReason(StrEnum):
    """Why a run must end before its last step."""

    LOST = "lost"
    """The row is no longer ours: drop the result."""
    CANCELLED = "cancelled"
    """The agent asked for it."""
    STOPPING = "stopping"
    """The daemon stops; the job goes back to the queue."""


class RunStopped(Exception):
    """Raised out of the pipeline between two steps."""

    def __init__(self, reason: StopReason) -> None:
        super().__init__(reason.value)
        self.reason = reason


class Lease:
    """One claim held for as long as the `async with` lasts."""

    def __init__(
        self, claims: ClaimStore, claim: Claim, heartbeat_s: float, on_progress: Callable[[], None] = lambda: None
    ) -> None:
        """`on_progress` is called in the event loop once a step is on disk."""
        self._claims = claims
        self._claim = claim
        self._heartbeat_s = heartbeat_s
        self._on_progress = on_progress
        self._loop = asyncio.get_running_loop()
        self._step = 0
        self._stepped = asyncio.Event()
        self._beat = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.stop_reason: StopReason | None = None

    async def __aenter__(self) -> Lease:
        self._tasks = [asyncio.create_task(self._heartbeats()), asyncio.create_task(self._report_progress())]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError):
                await task

    @property
    def step(self) -> int:
        """Steps done, as last heard in the event loop."""
        return self._step

    def on_step(self, step: int) -> None:
        """Called in the pipeline's thread. Raises RunStopped when the run must end."""
        self._loop.call_soon_threadsafe(self._note_step, step)
        self.check()

    def check(self) -> None:
        """Raise RunStopped when the run must end. Any thread may ask."""
        if self.stop_reason is not None:
            raise RunStopped(self.stop_reason)

    def stop(self, reason: StopReason) -> None:
        """End the run at its next step; the first reason stands."""
        self.stop_reason = self.stop_reason or reason

    def hurry(self) -> None:
        """Look at the row now: something may have been asked of this job."""
        self._beat.set()

    def _note_step(self, step: int) -> None:
        self._step = step
        self._stepped.set()

    async def _heartbeats(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._heartbeat_s):
                    await self._beat.wait()
            self._beat.clear()
            await self._touch(None)

    async def _report_progress(self) -> None:
        """Write the latest step, so many times a second at most."""
        while True:
            await asyncio.sleep(PROGRESS_INTERVAL_S)
            await self._stepped.wait()
            self._stepped.clear()
            await self._touch(self._step)

    async def _touch(self, step: int | None) -> None:
        try:
            if step is None:
                cancelled = await self._claims.heartbeat(self._claim)
            else:
                cancelled = await self._claims.put_progress(self._claim, step)
                self._on_progress()
        except StaleClaim:
            self.stop(StopReason.LOST)
        except Unavailable as error:  # the fence protects the row should the lease run out meanwhile
            LOG.warning("heartbeat_delayed", error=error.message)
        else:
            if cancelled:
                self.stop(StopReason.CANCELLED)
