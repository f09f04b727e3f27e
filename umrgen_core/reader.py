"""The one read-only connection of a process, in aiosqlite's thread.

The hop to that thread and back costs several times as much as a statement, so what is read together goes in one.
No statement leaves a cursor open: an open reader would keep the WAL growing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import aiosqlite

from umrgen_core.errors import Unavailable
from umrgen_core.logs import get_logger
from umrgen_core.meter import QUIET, Meter
from umrgen_core.sqlite import Connection, Row, SqliteError, open_reader

LOG = get_logger("store")
T = TypeVar("T")
UNREADABLE = "The store cannot be read now. Try again shortly."


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


class Reader:
    """Runs SELECTs."""

    def __init__(
        self, database: Path, connect: Callable[[Path], Connection] = open_reader, meter: Meter = QUIET
    ) -> None:
        self._thread = _Thread(lambda: connect(database), iter_chunk_size=64)
        self._is_open = False
        self._refusal: str | None = None
        self._meter = meter

    async def open(self) -> None:
        """Open the connection."""
        await self._thread
        self._is_open = True

    async def close(self) -> None:
        """Close the connection and end its thread."""
        self._is_open = False
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
            result = await self._thread.run(work)
        except SqliteError as error:
            self._meter.read_failed()
            LOG.error("store_read_failed", error=str(error))  # noqa: TRY400 - an answer, not a bug
            raise Unavailable(UNREADABLE) from None
        self._meter.read(time.perf_counter() - began)
        return result

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
