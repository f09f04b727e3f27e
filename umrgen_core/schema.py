"""Which schema this version speaks, and the creation of an empty store.

`PRAGMA user_version` repeats Alembic's revision as a number, so that the check costs microseconds
and needs no Alembic in the serving processes.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from umrgen_core.errors import SchemaError
from umrgen_core.lock import StoreLock
from umrgen_core.sqlite import Connection, SqliteError, open_reader

SCHEMA_VERSION = 8


def read_version(connection: Connection) -> int:
    """The schema's version; 0 is an empty database."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def find_version(database: Path) -> int:
    """The version in the file; 0 where there is no file or an empty one."""
    if not database.exists() or database.stat().st_size == 0:
        return 0
    try:
        connection = open_reader(database)
    except SqliteError as error:
        raise SchemaError(f"{database} cannot be opened: {error}") from None
    try:
        return read_version(connection)
    except SqliteError as error:
        raise SchemaError(f"{database} cannot be read as a database: {error}") from None
    finally:
        connection.close()


def ensure_store(data_dir: Path, database: Path) -> None:
    """Create the store where there is none; else check that its schema is ours.

    Whoever comes first creates it, in a child process (Alembic stays out of this one) and under the
    store's lock, so that the other waits. Raises SchemaError for an older or newer schema.
    """
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    if find_version(database) != SCHEMA_VERSION:
        lock = StoreLock(data_dir)
        try:
            with lock.held():
                if find_version(database) == 0:
                    refuse_foreign(database)
                    _create(database)
        finally:
            lock.close()
    check_version(find_version(database), database)


def refuse_foreign(database: Path) -> None:
    """Raise SchemaError when `database` holds another program's tables."""
    if not database.exists() or database.stat().st_size == 0:
        return
    connection = open_reader(database)
    try:
        row = connection.execute("SELECT name FROM sqlite_master LIMIT 1").fetchone()
    finally:
        connection.close()
    if row is not None:
        raise SchemaError(f"{database} is not UMRGEN's (it holds {row[0]!r}); name another [storage] data_dir")


def check_version(version: int, database: Path) -> None:
    """Raise SchemaError unless `version` is ours."""
    if version == SCHEMA_VERSION:
        return
    advice = (
        "run 'make migrate' while both processes are stopped"
        if version < SCHEMA_VERSION
        else "install the newer UMRGEN that made it, or restore a backup"
    )
    raise SchemaError(f"{database} has schema version {version}, this UMRGEN needs version {SCHEMA_VERSION}: {advice}")


def _create(database: Path) -> None:
    command = [sys.executable, "-m", "umrgen_core.migrate", "--database", str(database)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SchemaError(f"{database} could not be created: {done.stderr.strip() or done.stdout.strip()}")
