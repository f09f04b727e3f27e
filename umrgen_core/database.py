"""One process's access to the store: a writer, a reader, the statements and the clock."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from umrgen_core.clock import Clock
from umrgen_core.config import Settings
from umrgen_core.integrity import Integrity
from umrgen_core.meter import QUIET, Meter
from umrgen_core.names import new_process_id
from umrgen_core.presence import Presence
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
    integrity: Integrity
    clock: Clock
    meter: Meter = QUIET


@asynccontextmanager
async def open_database(
    settings: Settings, clock: Clock, process_id: str | None = None, *, meter: Meter = QUIET
) -> AsyncIterator[Database]:
    """Open the store of `settings`, creating it where there is none; `meter` is told what is done with it.

    After an unclean stop nothing can be written until `integrity` is good.

    Raises ConfigError for an unsafe SQLite, SchemaError for a schema that is not ours.
    """
    assert_safe_sqlite()
    storage = settings.storage
    process_id = process_id or new_process_id()
    ensure_store(storage.data_dir, storage.database)
    async with AsyncExitStack() as stack:
        presence = Presence(storage.data_dir, process_id)
        stack.callback(presence.withdraw)
        reader = Reader(storage.database, meter=meter)
        await reader.open()
        stack.push_async_callback(reader.close)
        writer = Writer(storage.data_dir, storage.database, storage.lock_timeout_s, meter)
        writer.start()
        stack.push_async_callback(writer.close)
        integrity = Integrity(storage.database, presence, writer)
        stack.push_async_callback(integrity.close)
        integrity.start()
        yield Database(writer, reader, load_statements(), integrity, clock, meter)
