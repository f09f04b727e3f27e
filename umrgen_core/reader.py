"""The one read-only connection of a process, in aiosqlite's thread.

The hop to that thread and back costs several times as much as a statement, and more while both threads have work
and contend for the interpreter: whatever waits to be read goes in one hop, and the event loop rests meanwhile.
No statement leaves a cursor open: an open reader would keep the WAL growing.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import aiosqlite

from umrgen_core.errors import Unavailable
from umrgen_core.logs import get_logger
from umrgen_core.meter import QUIET, Meter
from umrgen_core.sqlite import Connection, Row, SqliteError, open_reader

LOG = get_logger("store")
T = TypeVar("T")
UNREADABLE = "The store cannot be read now. Try again shortly."
GATHERING_ROUNDS = 4
"""Of the event loop, before a hop begins: some 20 µs, in which requests that are here already come to their reads."""
MOST_TOGETHER = 32
"""Reads of one hop."""
TOGETHER_S = 0.002
"""A hop that has taken so long comes back with what it has: a quick read waits for no more than one slow one."""


def fetch_all(connection: Connection, sql: str, /, **parameters: object) -> list[Row]:
    """Every row, and the cursor closed."""
    return connection.execute(sql, parameters).fetchall()


def fetch_one(connection: Connection, sql: str, /, **parameters: object) -> Row | None:
    """The first row, or None; the cursor is closed."""
    rows = connection.execute(sql, parameters).fetchall()
    return rows[0] if rows else None


class _Thread(aiosqlite.Connection):
    """Aiosqlite's thread, for a function as a whole: its public calls are a hop for each statement."""

    async def run(self, work: Callable[[Connection], T]) -> T:
        result: T = await self._execute(work, self._conn)  # type: ignore[no-untyped-call]
        return result


class _Read:
    """What one caller reads, and what came of it."""

    __slots__ = ("error", "future", "result", "work")

    def __init__(self, work: Callable[[Connection], Any], future: asyncio.Future[Any]) -> None:
        self.work = work
        self.future = future
        self.result: Any = None
        self.error: BaseException | None = None

    def do(self, connection: Connection) -> None:
        try:
            self.result = self.work(connection)
        except StopIteration as error:  # which no future takes
            self.error = RuntimeError("a read raised StopIteration")
            self.error.__cause__ = error
        except BaseException as error:  # noqa: BLE001 - its caller's, not that of the reads beside it
            self.error = error

    def answer(self) -> None:
        if self.future.done():  # its caller was cancelled
            return
        if self.error is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(self.error)


def _do_together(reads: Sequence[_Read], connection: Connection) -> int:
    """Do them in turn until time is up; how many were done."""
    until = time.perf_counter() + TOGETHER_S
    for done, read in enumerate(reads, 1):
        read.do(connection)
        if time.perf_counter() > until:
            return done
    return len(reads)


class Reader:
    """Runs SELECTs."""

    def __init__(
        self, database: Path, connect: Callable[[Path], Connection] = open_reader, meter: Meter = QUIET
    ) -> None:
        self._thread = _Thread(lambda: connect(database), iter_chunk_size=64)
        self._is_open = False
        self._refusal: str | None = None
        self._meter = meter
        self._waiting: deque[_Read] = deque()
        self._serving: asyncio.Task[None] | None = None
        self._in_company = False
        """Whether several shared the last hop: who reads alone need not wait for company."""

    async def open(self) -> None:
        """Open the connection."""
        await self._thread
        self._is_open = True

    async def close(self) -> None:
        """Answer those who wait, close the connection and end its thread."""
        self._is_open = False
        try:
            if self._serving is not None:
                await asyncio.wait({self._serving})  # not the task itself: who gives up here does not end it
        finally:
            await self._thread.close()

    async def run(self, work: Callable[[Connection], T]) -> T:
        """Do `work` in the reader's thread, in one hop. Raises Unavailable when the store cannot be read.

        Each statement sees the newest commit; two of them may see different ones.
        """
        if self._refusal is not None:
            raise Unavailable(self._refusal)
        if not self._is_open:
            raise Unavailable(UNREADABLE)
        began = time.perf_counter()
        try:
            result: T = await self._ask(work)
        except SqliteError as error:
            self._meter.read_failed()
            LOG.error("store_read_failed", error=str(error))  # noqa: TRY400 - an answer, not a bug
            raise Unavailable(UNREADABLE) from None
        self._meter.read(time.perf_counter() - began)
        return result

    def _ask(self, work: Callable[[Connection], Any]) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._waiting.append(_Read(work, future))
        if self._serving is None:
            self._serving = loop.create_task(self._serve())
        return future

    async def _serve(self) -> None:
        reads: list[_Read] = []
        try:
            for _ in range(GATHERING_ROUNDS if self._in_company else 0):
                await asyncio.sleep(0)
            while self._waiting:
                reads = [self._waiting.popleft() for _ in range(min(len(self._waiting), MOST_TOGETHER))]
                self._in_company = len(reads) > 1
                done = await self._thread.run(partial(_do_together, reads))
                self._waiting.extendleft(reversed(reads[done:]))
                for read in reads[:done]:
                    read.answer()
                reads = []
        finally:
            self._serving = None
            self._turn_away([*reads, *self._waiting])

    def _turn_away(self, reads: Sequence[_Read]) -> None:
        """Whatever has ended the task that serves them: nobody waits for ever."""
        self._waiting.clear()
        for read in reads:
            read.error = read.error or Unavailable(UNREADABLE)
            read.answer()

    async def all(self, sql: str, /, **parameters: object) -> list[Row]:
        """Every row. Raises Unavailable when the store cannot be read."""
        return await self.run(lambda connection: fetch_all(connection, sql, **parameters))

    async def read_version(self) -> int:
        """The schema's version, also while reads are refused; 0 when it cannot be told."""
        try:
            rows = list(await self._thread.execute_fetchall("PRAGMA user_version"))
        except (SqliteError, ValueError):
            return 0
        return int(rows[0][0])

    def refuse(self, message: str | None) -> None:
        """Answer every read with Unavailable and this message; None reads again."""
        self._refusal = message

    async def one(self, sql: str, /, **parameters: object) -> Row | None:
        """The first row, or None."""
        return await self.run(lambda connection: fetch_one(connection, sql, **parameters))
