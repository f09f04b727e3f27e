"""Connections to the store's SQLite, all opened here.

The SQLite inside Python may be one with the WAL-reset corruption bug (3.7.0 to 3.51.2, but for 3.44.6
and 3.50.7), which strikes exactly where two processes write in WAL mode; so the project carries its
own through the pysqlite3 wheel and refuses an affected one. Never two SQLite libraries in one process.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the wheel has no types of its own and mirrors the standard library
    import sqlite3
else:
    import pysqlite3.dbapi2 as sqlite3

from umrgen_core.errors import ConfigError

Connection = sqlite3.Connection
SqliteError = sqlite3.Error
IntegrityError = sqlite3.IntegrityError
OperationalError = sqlite3.OperationalError
Row = sqlite3.Row
sqlite_version = sqlite3.sqlite_version

FIRST_SAFE = (3, 51, 3)
BACKPORTS = {(3, 44): 6, (3, 50): 7}


def is_safe_version(version: tuple[int, ...]) -> bool:
    """Whether a SQLite of this version is free of the WAL-reset bug."""
    backport = BACKPORTS.get((version[0], version[1]))
    return version >= FIRST_SAFE or (backport is not None and version[2] >= backport)


def assert_safe_sqlite() -> None:
    """Raise ConfigError where the linked SQLite could corrupt the store."""
    if not is_safe_version(sqlite3.sqlite_version_info):
        raise ConfigError(
            f"SQLite {sqlite3.sqlite_version} can corrupt a database that two processes write (WAL-reset bug);"
            " 3.51.3 or newer is needed: run 'make setup' to install the pinned pysqlite3"
        )


def open_writer(database: Path) -> Connection:
    """The one connection of a process that writes. Durable at each commit; autocommit, explicit BEGIN."""
    connection = _connect(database)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA wal_autocheckpoint=4000")
    return connection


def open_reader(database: Path) -> Connection:
    """A connection that can only read."""
    connection = _connect(database)
    connection.execute("PRAGMA query_only=ON")
    return connection


def open_untouched(database: Path) -> Connection:
    """A connection for looking at a store that may be broken: no byte of the database or its log is changed.

    An ordinary reader that is the last to close would write the log back. Where there is no log nobody writes, and
    SQLite is told that nothing will change, or else it would make one: so keep this connection for seconds only.
    """
    wal = database.with_name(database.name + "-wal")
    connection = _connect(database, "mode=ro" if wal.exists() else "mode=ro&immutable=1")
    connection.execute("PRAGMA query_only=ON")
    return connection


def _connect(database: Path, mode: str = "mode=rw") -> Connection:
    # isolation_level=None: transactions are begun by us, always IMMEDIATE when they write.
    connection = sqlite3.connect(
        f"file:{_quote(database)}?{mode}", uri=True, isolation_level=None, check_same_thread=False, timeout=5.0
    )
    connection.row_factory = sqlite3.Row
    # 8 MiB a connection keeps the web tier below 100 MB however large the store grows; the kernel caches the rest.
    connection.execute("PRAGMA cache_size=-8192")
    connection.execute("PRAGMA mmap_size=0")
    connection.execute("PRAGMA secure_delete=OFF")
    return connection


def _quote(database: Path) -> str:
    return str(database).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
