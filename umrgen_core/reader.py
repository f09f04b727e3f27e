"""The one read-only connection of a process, in aiosqlite's thread.

A statement is one hop and leaves no cursor open: an open reader would keep the WAL growing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import aiosqlite

from umrgen_core.errors import Unavailable
from umrgen_core.logs import get_logger
from umrgen_core.meter import QUIET, Meter
from umrgen_core.sqlite import Connection, Row, SqliteError, open_reader

LOG = get_logger("store")


class Reader:
    """Runs SELECTs."""

    def __init__(
        self, database: Path, connect: Callable[[Path], Connection] = open_reader, meter: Meter = QUIET
    ) -> None:
        self._connection = aiosqlite.Connection(lambda: connect(database), iter_chunk_size=64)
        self._refusal: str | None = None
        self._meter = meter

    async def open(self) -> None:
        """Open the connection."""
        await self._connection

    async def close(self) -> None:
        """Close the connection and end its thread."""
        await self._connection.close()

    async def all(self, sql: str, /, **parameters: object) -> list[Row]:
        """Every row. Raises Unavailable when the store cannot be read."""
        if self._refusal is not None:
            raise Unavailable(self._refusal)
        began = time.perf_counter()
        try:
            rows = list(await self._connection.execute_fetchall(sql, parameters))
        except (SqliteError, ValueError) as error:  # ValueError: the connection is closed
            self._meter.read_failed()
            LOG.error("store_read_failed", error=str(error))  # noqa: TRY400 - an answer, not a bug
            raise Unavailable("The store cannot be read now. Try again shortly.") from None
        self._meter.read(time.perf_counter() - began)
        return rows

    async def read_version(self) -> int:
        """The schema's version, also while reads are refused; 0 when it cannot be told."""
        try:
            rows = list(await self._connection.execute_fetchall("PRAGMA user_version"))
        except (SqliteError, ValueError):
            return 0
        return int(rows[0][0])

    def refuse(self, message: str | None) -> None:
        """Answer every read with Unavailable and this message; None reads again."""
        self._refusal = message

    async def one(self, sql: str, /, **parameters: object) -> Row | None:
        """The first row, or None."""
        rows = await self.all(sql, **parameters)
        return rows[0] if rows else None
