"""The copy of the database that a way back needs: taken, put back, compared."""

from __future__ import annotations

import errno
from contextlib import closing
from pathlib import Path

import pytest

from deploy.install import copies, inside, store
from tests.conftest import ROOT, make_settings
from umrgen_core.schema import SCHEMA_VERSION, find_version
from umrgen_core.sqlite import open_writer


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return make_settings(tmp_path / "data").storage.database


def mark(database: Path, version: int) -> None:
    with closing(open_writer(database)) as connection:
        connection.execute(f"PRAGMA user_version={version}")


def test_putting_the_database_back_never_leaves_the_box_without_one(
    database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "before-upgrades/0.1.0-2" / store.COPY
    copies.keep(database, copy)
    mark(database, 99)
    monkeypatch.setattr(copies.subprocess, "run", fail)
    with pytest.raises(OSError, match="no room"):
        copies.put_back(database, copy)
    monkeypatch.undo()
    assert find_version(database) == 99
    kept = copies.put_back(database, copy)
    assert find_version(database) == SCHEMA_VERSION
    assert kept == copy.parent / "replaced-2"
    assert {find_version(copy.parent / name / database.name) for name in ("replaced-1", "replaced-2")} == {99}
    assert not copy.exists()


def fail(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "no room")


def test_what_the_log_still_holds_is_in_the_copy(database: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copies" / store.COPY
    with closing(open_writer(database)) as open_still:
        open_still.execute("PRAGMA user_version=42")
        copies.keep(database, copy)
    assert find_version(copy) == 42
    assert copy.stat().st_mode & 0o077 == 0


UPLOAD = """INSERT INTO "references" (agent_id, filename, disk_name, format, width, height, bytes, sha256,
    source_sha256, source_width, source_height, source_bytes, source_format, created_at_us, expires_at_us)
    VALUES (1, :name, :name, 'png', 1, 1, 1, :sha, :sha, 1, 1, 1, 'png', 0, 0)"""


def test_keys_and_uploads_since_a_copy_are_counted_wherever_the_data_lies(database: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text((ROOT / "config.toml").read_text().replace('data_dir = "var"', f'data_dir = "{database.parent}"'))
    with closing(open_writer(database)) as connection:
        connection.execute("PRAGMA foreign_keys=OFF")
        connection.execute(UPLOAD, {"name": "a", "sha": "a" * 64})
        copy = tmp_path / store.COPY
        copies.keep(database, copy)
        assert inside.describe(config, copy)["uploads_since"] == 0
        connection.execute('DELETE FROM "references"')  # it expires, and its number is given again
        connection.execute(UPLOAD, {"name": "b", "sha": "b" * 64})
        key = "INSERT INTO api_keys (agent_id, name, sha256, created_at_us) VALUES (1, 'k', ?, 0)"
        connection.execute(key, ("c" * 64,))
    found = inside.describe(config, copy)
    assert found["database"] == str(database)
    assert (found["jobs_since"], found["keys_since"], found["uploads_since"]) == (0, 1, 1)
    assert not list(tmp_path.glob(f"{store.COPY}-*"))  # looking at the copy changes nothing
