"""The one thread of a process that writes: whatever waits becomes one transaction.

Grouping makes full durability as fast as none (a lone caller waits no longer than for its own fsync).
Each item runs under its own savepoint, so one caller's error undoes that caller's work alone; everybody
is answered after the commit.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

from umrgen_core.errors import SchemaError, Unavailable
from umrgen_core.lock import StoreLock
from umrgen_core.logs import get_logger
from umrgen_core.meter import QUIET, Meter
from umrgen_core.schema import check_version, read_version
from umrgen_core.sqlite import Connection, IntegrityError, SqliteError, open_writer

LOG = get_logger("store")

T = TypeVar("T")
Work = Callable[[Connection], T]

CANNOT_WRITE = "The store cannot take writes now; nothing was written. Try again shortly."
TOO_BUSY = "The store is busy; nothing was written. Try again shortly."
UNKNOWN_OUTCOME = "The store did not confirm the write; ask for its outcome before you try again."
SCHEMA_CHANGED = "The store is being upgraded. Try again when the service has been restarted."

MAX_BATCH = 256
"""Items in one transaction: bounds how long the lock is held."""


class _Item:
    """One caller's work. `taken` and `abandoned` exclude each other: whoever is first decides."""

    __slots__ = ("_lock", "abandoned", "error", "future", "result", "taken", "work")

    def __init__(self, work: Work[Any], future: asyncio.Future[Any]) -> None:
        self.work = work
        self.future = future
        self.result: Any = None
        self.error: BaseException | None = None
        self.taken = False
        self.abandoned = False
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Begin; False when the caller has given up."""
        with self._lock:
            self.taken = not self.abandoned
            return self.taken

    def abandon(self) -> bool:
        """Give up; False when the work has begun and its outcome is open."""
        with self._lock:
            self.abandoned = not self.taken
            return self.abandoned

    def give_up(self) -> None:
        """Answer in the writer's stead, whose time is over; runs in the event loop."""
        if not self.future.done():
            self.error = Unavailable(TOO_BUSY if self.abandon() else UNKNOWN_OUTCOME)
            self.answer()

    def answer(self) -> None:
        """Resolve the future; runs in the event loop."""
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
            self.future.exception()  # a caller that was cancelled never asks; unasked, asyncio would log it
        else:
            self.future.set_result(self.result)


class Writer:
    """Owns the write connection and its thread."""

    def __init__(self, data_dir: Path, database: Path, lock_timeout_s: float, meter: Meter = QUIET) -> None:
        self._database = database
        self._meter = meter
        self._timeout_s = lock_timeout_s
        self._lock = StoreLock(data_dir)
        self._waiting: SimpleQueue[_Item | None] = SimpleQueue()
        self._gathered: list[_Item] = []
        self._closing = False
        self._held_since_s: float | None = None
        self._refusal: str | None = None
        self._connection: Connection | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._serve, name="store-writer", daemon=True)

    def start(self) -> None:
        """Start the thread; answers go to the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    @property
    def held_s(self) -> float:
        """For how long the transaction under way has kept others from writing; 0 where there is none."""
        since_s = self._held_since_s
        return 0.0 if since_s is None else time.perf_counter() - since_s

    def refuse(self, message: str | None) -> None:
        """Answer every write with Unavailable and this message; None takes writes again."""
        self._refusal = message

    async def close(self) -> None:
        """Finish what waits, then end the thread (which is left behind if another process blocks it)."""
        self._closing = True
        self._hand_over()
        self._waiting.put(None)
        await asyncio.to_thread(self._thread.join, self._timeout_s)

    async def run(self, work: Work[T]) -> T:
        """Run `work(connection)` in a write transaction and return its result once it is on disk.

        Raises what `work` raises (its changes are undone), or Unavailable when the store cannot be
        written in time or the commit fails; the message says whether the outcome is known.
        """
        if self._refusal is not None:
            raise Unavailable(self._refusal)
        if self._closing:
            raise Unavailable("The service is stopping; nothing was written. Try again shortly.")
        loop = asyncio.get_running_loop()
        item = _Item(work, loop.create_future())
        if not self._gathered:
            loop.call_soon(self._hand_over)
        self._gathered.append(item)
        deadline = loop.call_later(self._timeout_s, item.give_up)
        try:
            result: T = await item.future
            return result
        finally:
            deadline.cancel()

    def _hand_over(self) -> None:
        """Give the thread what was asked for in this round of the event loop, so that it becomes one transaction."""
        gathered, self._gathered = self._gathered, []
        for item in gathered:
            self._waiting.put(item)

    def _serve(self) -> None:
        while (first := self._waiting.get()) is not None:
            batch: list[_Item] = []
            asked = time.perf_counter()
            try:
                with self._lock.held():
                    began = self._held_since_s = time.perf_counter()
                    batch = self._take_batch(first)
                    if batch:
                        self._write(batch)
                        self._meter.wrote(len(batch), began - asked, time.perf_counter() - began)
            except OSError as error:  # the lock itself: this thread must outlive it
                batch = batch or self._take_batch(first)
                self._fail(batch, CANNOT_WRITE, str(error))
            self._held_since_s = None
            self._answer(batch)
        self._drop_connection()
        self._lock.close()

    def _take_batch(self, first: _Item) -> list[_Item]:
        """What waits by now, as far as its callers still do."""
        batch: list[_Item] = []
        item: _Item | None = first
        while item is not None:
            if item.take():
                batch.append(item)
            if len(batch) == MAX_BATCH or self._waiting.empty():
                return batch
            item = self._waiting.get()
        self._waiting.put(None)  # it is closing: the end is for _serve to see
        return batch

    def _write(self, batch: list[_Item]) -> None:
        committing = False
        try:
            connection = self._begin()
            for item in batch:
                _run_item(connection, item)
            committing = True
            connection.execute("COMMIT")
        except SchemaError as error:
            self._fail(batch, SCHEMA_CHANGED, error.message)
        except SqliteError as error:
            self._fail(batch, UNKNOWN_OUTCOME if committing else CANNOT_WRITE, str(error))

    def _begin(self) -> Connection:
        if self._connection is None:
            self._connection = open_writer(self._database)
        self._connection.execute("BEGIN IMMEDIATE")
        check_version(read_version(self._connection), self._database)
        return self._connection

    def _fail(self, batch: list[_Item], message: str, reason: str) -> None:
        LOG.error("store_write_failed", items=len(batch), error=reason)
        self._meter.write_failed()
        # After a failed statement or commit the connection's state is not worth guessing.
        self._drop_connection()
        for item in batch:
            item.error = Unavailable(message)

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            connection.close()
        except SqliteError:
            return

    def _answer(self, batch: list[_Item]) -> None:
        loop = self._loop
        if not batch or loop is None or loop.is_closed():
            return
        try:
            loop.call_soon_threadsafe(_answer_all, batch)
        except RuntimeError:  # the loop closed meanwhile: nobody is left to be answered
            return


def _answer_all(batch: list[_Item]) -> None:
    for item in batch:
        item.answer()


def _run_item(connection: Connection, item: _Item) -> None:
    connection.execute("SAVEPOINT item")
    try:
        item.result = item.work(connection)
    except Exception as error:
        if isinstance(error, SqliteError) and not isinstance(error, IntegrityError):
            raise
        item.error = error
        connection.execute("ROLLBACK TO item")
    connection.execute("RELEASE item")
