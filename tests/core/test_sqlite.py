from __future__ import annotations

import sqlite3 as python_sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from umrgen_core import sqlite
from umrgen_core.errors import ConfigError
from umrgen_core.sqlite import (
    Connection,
    OperationalError,
    assert_safe_sqlite,
    is_safe_version,
    open_reader,
    open_writer,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "50%41 of #1?.sqlite3"
    path.touch()
    connection = open_writer(path)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE parents (id INTEGER PRIMARY KEY)")
    connection.execute("CREATE TABLE children (parent INTEGER REFERENCES parents (id))")
    connection.close()
    return path


@pytest.fixture
def writer(path: Path) -> Iterator[Connection]:
    connection = open_writer(path)
    yield connection
    connection.close()


@pytest.fixture
def reader(path: Path) -> Iterator[Connection]:
    connection = open_reader(path)
    yield connection
    connection.close()


def pragma(connection: Connection, name: str) -> object:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


@pytest.mark.parametrize("version", [(3, 7, 0), (3, 40, 1), (3, 44, 5), (3, 45, 0), (3, 50, 6), (3, 51, 0), (3, 51, 2)])
def test_a_version_with_the_wal_reset_bug_is_affected(version: tuple[int, ...]) -> None:
    assert not is_safe_version(version)


@pytest.mark.parametrize("version", [(3, 44, 6), (3, 44, 7), (3, 50, 7), (3, 51, 3), (3, 52, 0), (3, 53, 4), (4, 0, 0)])
def test_a_version_with_the_fix_is_safe(version: tuple[int, ...]) -> None:
    assert is_safe_version(version)


def test_the_linked_version_is_safe_and_not_pythons_own() -> None:
    assert_safe_sqlite()
    assert Connection is not python_sqlite3.Connection
    assert sys.modules["pysqlite3.dbapi2"].Connection is Connection


def test_an_affected_library_is_refused_by_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite.sqlite3, "sqlite_version_info", (3, 40, 1))
    monkeypatch.setattr(sqlite.sqlite3, "sqlite_version", "3.40.1")
    with pytest.raises(ConfigError, match=r"3\.40\.1.*3\.51\.3 or newer"):
        assert_safe_sqlite()


def test_the_writer_is_durable_at_each_commit(writer: Connection) -> None:
    assert pragma(writer, "synchronous") == 2  # FULL
    assert pragma(writer, "journal_mode") == "wal"
    assert pragma(writer, "wal_autocheckpoint") == 4000


def test_the_writer_holds_foreign_keys(writer: Connection) -> None:
    with pytest.raises(sqlite.IntegrityError, match="FOREIGN KEY"):
        writer.execute("INSERT INTO children VALUES (1)")


def test_both_connections_have_the_measured_settings(writer: Connection, reader: Connection) -> None:
    for connection in (writer, reader):
        assert pragma(connection, "cache_size") == -8192
        assert pragma(connection, "secure_delete") == 0
        assert connection.isolation_level is None


def test_the_writer_begins_no_transaction_of_its_own(writer: Connection, reader: Connection) -> None:
    writer.execute("INSERT INTO parents VALUES (1)")
    assert not writer.in_transaction
    assert reader.execute("SELECT count(*) FROM parents").fetchone()[0] == 1


def test_the_reader_cannot_write(reader: Connection) -> None:
    with pytest.raises(OperationalError, match="readonly"):
        reader.execute("INSERT INTO parents VALUES (1)")
    with pytest.raises(OperationalError, match="readonly"):
        reader.execute("CREATE TABLE more (id INTEGER)")


@pytest.mark.parametrize("opener", [open_writer, open_reader])
def test_a_missing_database_is_not_made_by_opening_it(tmp_path: Path, opener: object) -> None:
    with pytest.raises(OperationalError):
        opener(tmp_path / "none.sqlite3")  # type: ignore[operator]
    assert not (tmp_path / "none.sqlite3").exists()


def test_the_file_that_was_named_is_the_one_that_is_opened(path: Path, writer: Connection) -> None:
    assert writer.execute("PRAGMA database_list").fetchone()["file"] == str(path)
