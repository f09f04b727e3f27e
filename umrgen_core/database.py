"""One process's access to the store: a writer, a reader, the statements and the clock."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from umrgen_core.clock import Clock
from umrgen_core.config import Settings
from umrgen_core.reader import Reader
from umrgen_core.schema import ensure_store
from umrgen_core.sqlite import assert_safe_sqlite
from umrgen_core.statements import load_statements
from umrgen_core.writer import Writer


@dataclass(frozen=True, slots=True)
class Database:
    """What the stores are built on."""

    writer: Writer
    reader: Reader
    statements: Any
    clock: Clock


@asynccontextmanager
async def open_database(settings: Settings, clock: Clock) -> AsyncIterator[Database]:
    """Open the store of `settings`, creating it where there is none.

    Raises ConfigError for an unsafe SQLite, SchemaError for a schema that is not ours.
    """
    assert_safe_sqlite()
    storage = settings.storage
    ensure_store(storage.data_dir, storage.database)
    reader = Reader(storage.database)
    await reader.open()
    writer = Writer(storage.data_dir, storage.database, storage.lock_timeout_s)
    writer.start()
    try:
        yield Database(writer, reader, load_statements(), clock)
    finally:
        await writer.close()
        await reader.close()
