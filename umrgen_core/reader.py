"""The one read-only connection of a process, in aiosqlite's thread.

A statement is one hop and leaves no cursor open: an open reader would keep the WAL growing.
"""

from __future__ import annotations

from pathlib import Path

import aiosqlite

from umrgen_core.errors import Unavailable
from umrgen_core.sqlite import Row, SqliteError, open_reader


class Reader:
    """Runs SELECTs."""

    def __init__(self, database: Path) -> None:
        self._connection = aiosqlite.Connection(lambda: open_reader(database), iter_chunk_size=64)

    async def open(self) -> None:
        """Open the connection."""
        await self._connection

    async def close(self) -> None:
        """Close the connection and end its thread."""
        await self._connection.close()

    async def all(self, sql: str, /, **parameters: object) -> list[Row]:
        """Every row. Raises Unavailable when the store cannot be read."""
        try:
            return list(await self._connection.execute_fetchall(sql, parameters))
        except (SqliteError, ValueError) as error:  # ValueError: the connection is closed
            raise Unavailable(f"The store cannot be read now ({error}). Try again shortly.") from None

    async def one(self, sql: str, /, **parameters: object) -> Row | None:
        """The first row, or None."""
        rows = await self.all(sql, **parameters)
        return rows[0] if rows else None
