from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT
from umrgen_core import schema
from umrgen_core.errors import SchemaError
from umrgen_core.lock import StoreLock
from umrgen_core.migrate import head_version, migrate
from umrgen_core.schema import SCHEMA_VERSION, ensure_store, find_version
from umrgen_core.sqlite import Connection, open_reader, open_writer

# Creates the store as a serving process does, and leaves a mark if it was the one that did.
STARTER = """
import sys
from pathlib import Path
from umrgen_core import schema
create = schema._create
def create_and_mark(database):
    open(sys.argv[3], "a").write("created ")
    create(database)
schema._create = create_and_mark
schema.ensure_store(Path(sys.argv[1]), Path(sys.argv[2]))
"""


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def path(data_dir: Path) -> Path:
    return data_dir / "umrgen.sqlite3"


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def change(path: Path, *statements: str) -> None:
    connection = open_writer(path)
    for statement in statements:
        connection.execute(statement)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def list_tables(connection: Connection) -> set[str]:
    return {row["name"] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def run_migrate(folder: Path) -> subprocess.CompletedProcess[str]:
    config = folder / "config.toml"
    config.write_text((ROOT / "config.toml").read_text().replace('"var"', f'"{folder / "data"}"'))
    command = [sys.executable, "-m", "umrgen_core.migrate", "--config", str(config)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


def await_waiters(path: Path, count: int) -> None:
    """Until `count` processes wait for the flock of `path`."""
    inode = f":{path.stat().st_ino} "
    deadline = time.monotonic() + 60
    while True:
        waiting = [line for line in Path("/proc/locks").read_text().splitlines() if "->" in line and inode in line]
        if len(waiting) >= count:
            return
        assert time.monotonic() < deadline, "the processes do not wait for the lock"
        time.sleep(0.01)


def test_the_code_speaks_the_newest_migration() -> None:
    assert head_version() == SCHEMA_VERSION


def test_a_missing_store_is_created(data_dir: Path, path: Path) -> None:
    ensure_store(data_dir, path)
    assert find_version(path) == SCHEMA_VERSION
    reader = open_reader(path)
    assert {"agents", "api_keys", "jobs", "job_references", "references", "outputs"} <= list_tables(reader)
    assert reader.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    reader.close()


def test_only_the_owner_may_look_into_the_store(data_dir: Path, path: Path) -> None:
    ensure_store(data_dir, path)
    assert data_dir.stat().st_mode & 0o777 == 0o700
    assert path.stat().st_mode & 0o777 == 0o600


def test_an_empty_file_counts_as_no_store(data_dir: Path, path: Path) -> None:
    data_dir.mkdir()
    path.touch()
    ensure_store(data_dir, path)
    assert find_version(path) == SCHEMA_VERSION


def test_a_creation_that_was_cut_short_is_done_again(data_dir: Path, path: Path) -> None:
    data_dir.mkdir()
    path.touch()
    change(path, "PRAGMA journal_mode=WAL")  # all that a killed migration leaves: it is one transaction
    assert path.stat().st_size > 0
    ensure_store(data_dir, path)
    assert find_version(path) == SCHEMA_VERSION


def test_processes_that_race_create_the_store_once(data_dir: Path, path: Path, tmp_path: Path) -> None:
    data_dir.mkdir()
    lock, marks = StoreLock(data_dir), tmp_path / "marks"
    command = [sys.executable, "-c", STARTER, str(data_dir), str(path), str(marks)]
    with lock.held():
        racing = [subprocess.Popen(command, cwd=ROOT) for _ in range(2)]
        await_waiters(data_dir / "store.lock", 2)
    lock.close()
    assert [process.wait(60) for process in racing] == [0, 0]
    assert marks.read_text() == "created "
    assert find_version(path) == SCHEMA_VERSION


def test_a_store_that_is_there_is_opened_without_its_lock(data_dir: Path, path: Path) -> None:
    ensure_store(data_dir, path)
    lock = StoreLock(data_dir)
    with lock.held():
        ensure_store(data_dir, path)
    lock.close()


def test_a_newer_store_is_refused_by_both_versions_and_left_alone(data_dir: Path, path: Path) -> None:
    ensure_store(data_dir, path)
    change(path, "PRAGMA user_version=9")
    before = digest(path)
    with pytest.raises(SchemaError, match=f"version 9, .* needs version {SCHEMA_VERSION}: install the newer UMRGEN"):
        ensure_store(data_dir, path)
    assert digest(path) == before


def test_an_older_store_is_refused_with_the_command_and_left_alone(
    data_dir: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensure_store(data_dir, path)
    before = digest(path)
    newer = SCHEMA_VERSION + 1
    monkeypatch.setattr(schema, "SCHEMA_VERSION", newer)
    with pytest.raises(SchemaError, match=f"version {SCHEMA_VERSION}, .* needs version {newer}: run 'make migrate'"):
        ensure_store(data_dir, path)
    assert digest(path) == before


def store_bytes(folder: Path) -> bytes:
    ensure_store(folder, folder / "whole.sqlite3")
    return (folder / "whole.sqlite3").read_bytes()


BROKEN: dict[str, Callable[[bytes], bytes]] = {
    "text": lambda _: b"not a database\n" * 1000,
    "a few bytes": lambda _: b"hello",
    "zeros": lambda whole: bytes(len(whole)),
    "the header": lambda whole: whole[:100],
    "the first page": lambda whole: whole[:4096],
    "the first half": lambda whole: whole[: len(whole) // 2],
    "zeros after the first page": lambda whole: whole[:4096] + bytes(len(whole) - 4096),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_no_whole_database_is_refused_and_left_alone(
    data_dir: Path, path: Path, tmp_path: Path, kind: str
) -> None:
    content = BROKEN[kind](store_bytes(tmp_path / "other"))
    data_dir.mkdir()
    path.write_bytes(content)
    with pytest.raises(SchemaError, match=str(path)):
        ensure_store(data_dir, path)
    assert path.read_bytes() == content
    assert not set(os.listdir(data_dir)) - {path.name, "store.lock"}


def test_a_database_of_another_program_is_refused_and_left_alone(data_dir: Path, path: Path) -> None:
    data_dir.mkdir()
    path.touch()
    change(path, "CREATE TABLE notes (body TEXT)", "INSERT INTO notes VALUES ('mine')")
    before = digest(path)
    with pytest.raises(SchemaError, match=str(path)):
        ensure_store(data_dir, path)
    assert digest(path) == before


def test_the_migrate_command_makes_a_store_and_does_nothing_twice(tmp_path: Path, path: Path) -> None:
    first = run_migrate(tmp_path)
    assert (first.returncode, first.stdout) == (0, f"{path}: schema version {SCHEMA_VERSION}\n")
    change(path, "INSERT INTO agents (name, session_id, created_at_us) VALUES ('a', 'sid_ext_a', 0)")
    second = run_migrate(tmp_path)
    assert (second.returncode, second.stdout) == (0, first.stdout)
    reader = open_reader(path)
    assert reader.execute("SELECT count(*) FROM agents").fetchone()[0] == 1
    reader.close()


def test_the_migrate_command_refuses_a_newer_store_in_one_sentence(tmp_path: Path, data_dir: Path, path: Path) -> None:
    ensure_store(data_dir, path)
    change(path, "PRAGMA user_version=9", "UPDATE alembic_version SET version_num = '0009'")
    before = digest(path)
    done = run_migrate(tmp_path)
    assert done.returncode != 0
    assert digest(path) == before
    assert done.stderr.startswith("umrgen-migrate: ")
    assert len(done.stderr.splitlines()) == 1


def test_a_migration_that_fails_leaves_nothing_behind(
    data_dir: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("umrgen_core.migrate.refuse_foreign", lambda _: None)
    data_dir.mkdir()
    path.touch()
    change(path, "CREATE TABLE run_times (mine TEXT)")  # in the way of one of the last tables
    with pytest.raises(SchemaError, match="run_times already exists"):
        migrate(path)
    reader = open_reader(path)
    assert list_tables(reader) == {"run_times"}
    assert find_version(path) == 0
    reader.close()
