"""The write-ahead log brought back into the database, and the database made as small as its rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from umrgen_core.errors import OperatorError, Unavailable
from umrgen_core.footprint import read_available_memory, read_footprint
from umrgen_core.lock import StoreLock
from umrgen_core.sections import StorageSettings
from umrgen_core.sqlite import Connection, SqliteError, open_writer

READERS_TIMEOUT_MS = 1000
"""How long the last part waits for a reader, with the store's lock held."""
VACUUM_MEMORY = 1.25
"""Of the database's size. VACUUM gathers the rows in memory, since the SQLite that we carry keeps every temporary
database there; then it writes them into the log, which needs as much disk."""


@dataclass(frozen=True, slots=True)
class Shrunk:
    """Bytes on disk before and after. `complete` is False where a reader was in the way of an empty log."""

    wal_before_bytes: int
    wal_bytes: int
    database_before_bytes: int
    database_bytes: int
    complete: bool


def write_back(storage: StorageSettings) -> Shrunk:
    """Copy the log into the database and cut it to nothing. Blocks. Raises Unavailable.

    Most is copied without the store's lock, so that nobody's write waits for it.
    """
    return _shrink(storage, vacuum=False)


def vacuum(storage: StorageSettings) -> Shrunk:
    """Write the database anew without its holes. Blocks, and so does every write meanwhile.

    Raises OperatorError where disk or memory have no room for it, Unavailable.
    """
    found, memory_bytes = read_footprint(storage), read_available_memory()
    needed = found.database_bytes + storage.disk_floor_bytes
    if found.free_bytes < needed:
        raise OperatorError(f"--vacuum needs {needed} bytes of free disk here, there are {found.free_bytes}")
    needed = int(found.database_bytes * VACUUM_MEMORY)
    if memory_bytes < needed:
        raise OperatorError(f"--vacuum needs {needed} bytes of free memory here, there are {memory_bytes}")
    return _shrink(storage, vacuum=True)


def _shrink(storage: StorageSettings, *, vacuum: bool) -> Shrunk:
    before = read_footprint(storage)
    with _opened(storage) as connection:
        _checkpoint(connection, "PASSIVE")
        lock = StoreLock(storage.data_dir)
        with closing(lock), lock.held(storage.lock_timeout_s):
            if vacuum:
                connection.execute("VACUUM")
            complete = _checkpoint(connection, "TRUNCATE")
        after = read_footprint(storage)
    return Shrunk(before.wal_bytes, after.wal_bytes, before.database_bytes, after.database_bytes, complete)


@contextmanager
def _opened(storage: StorageSettings) -> Iterator[Connection]:
    try:
        with closing(open_writer(storage.database)) as connection:
            connection.execute(f"PRAGMA busy_timeout={READERS_TIMEOUT_MS}")
            yield connection
    except SqliteError as error:
        raise Unavailable(f"{storage.database} cannot be written now ({error}); nothing was lost") from None


def _checkpoint(connection: Connection, mode: str) -> bool:
    """Whether it went through to the end."""
    return not connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()[0]
