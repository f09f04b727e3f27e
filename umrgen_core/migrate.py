"""Bring a database to the schema of this version: `python -m umrgen_core.migrate --config F`.

Runs as a process of its own, since it alone needs Alembic and SQLAlchemy.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from pysqlite3 import dbapi2
from sqlalchemy.exc import SQLAlchemyError

from umrgen_core.config import load_settings
from umrgen_core.errors import SchemaError, UmrgenError
from umrgen_core.lock import StoreLock
from umrgen_core.schema import check_version, find_version, refuse_foreign
from umrgen_core.sqlite import assert_safe_sqlite, open_writer

MIGRATIONS = Path(__file__).resolve().parents[1] / "migrations"


def alembic_config(database: Path) -> Config:
    """Alembic's settings, without an ini file."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["database"] = database
    return config


def head_version() -> int:
    """The newest revision in migrations/, as a number."""
    head = ScriptDirectory.from_config(alembic_config(Path())).get_current_head()
    return int(head or 0)


@contextmanager
def alembic_connection(database: Path) -> Iterator[sqlalchemy.Connection]:
    """A SQLAlchemy connection whose transactions are IMMEDIATE: all migrations happen or none does."""
    database.touch(mode=0o600)
    raw = open_writer(database)
    raw.execute("PRAGMA foreign_keys=OFF")
    engine = sqlalchemy.create_engine("sqlite://", module=dbapi2, creator=lambda: raw)
    sqlalchemy.event.listen(engine, "begin", lambda _: raw.execute("BEGIN IMMEDIATE"))
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def migrate(database: Path) -> int:
    """Upgrade `database` to the newest schema and return its version. The caller holds the store's lock.

    Raises SchemaError for a store that is newer, another program's, or cannot be upgraded; it is left as it is.
    """
    version = find_version(database)
    if version == 0:
        refuse_foreign(database)
    elif version > head_version():
        check_version(version, database)
    try:
        command.upgrade(alembic_config(database), "head")
    except (CommandError, SQLAlchemyError) as error:
        raise SchemaError(f"{database} could not be upgraded: {error}") from None
    return find_version(database)


def main() -> int:
    """Entry of `make migrate`, and of the child that creates an empty store."""
    parser = argparse.ArgumentParser(prog="umrgen-migrate", description=main.__doc__)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--config", type=Path, help="config.toml of the store")
    where.add_argument("--database", type=Path, help="the database itself; the caller holds the store's lock")
    options = parser.parse_args()
    try:
        assert_safe_sqlite()
        if options.database:
            migrate(options.database)
            return 0
        storage = load_settings(options.config).storage
        storage.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = StoreLock(storage.data_dir)
        with lock.held():
            version = migrate(storage.database)
        lock.close()
    except UmrgenError as error:
        print(f"umrgen-migrate: {error.message}", file=sys.stderr)
        return 1
    print(f"{storage.database}: schema version {version}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
