from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.conftest import make_settings
from umrgen_core.backup import restore
from umrgen_core.dated_backups import back_up_dated
from umrgen_core.errors import SchemaError

NIGHT = datetime(2026, 11, 23, 3, 30, tzinfo=UTC)


def test_the_newest_are_kept_and_nothing_that_is_not_ours_is_touched(tmp_path: Path) -> None:
    storage, folder = make_settings(tmp_path / "data").storage, tmp_path / "backups"
    foreign = ("umrgen-by-hand", "umrgen-2026-02-30T03-30-00Z", "umrgen-2026-02-30T03-30-00Z.partial")
    for name in foreign:
        (folder / name).mkdir(parents=True)
    for day in range(5):
        report, deleted = back_up_dated(storage, folder, 3, NIGHT + timedelta(days=day))
        assert len(deleted) == (day >= 3)
    kept = ("umrgen-2026-11-25T03-30-00Z", "umrgen-2026-11-26T03-30-00Z", "umrgen-2026-11-27T03-30-00Z")
    assert {path.name for path in folder.iterdir()} == {*kept, *foreign}
    restore(storage, report.folder)


def test_a_backup_that_fails_costs_none_of_those_before_it(tmp_path: Path) -> None:
    storage, folder = make_settings(tmp_path / "data").storage, tmp_path / "backups"
    back_up_dated(storage, folder, 1, NIGHT)
    storage.database.write_bytes(b"no database at all" * 100)
    with pytest.raises(SchemaError):
        back_up_dated(storage, folder, 1, NIGHT + timedelta(days=1))
    assert "umrgen-2026-11-23T03-30-00Z" in {path.name for path in folder.iterdir()}


def test_what_a_crash_left_unfinished_is_cleared_away_but_not_one_under_way(tmp_path: Path) -> None:
    storage, folder = make_settings(tmp_path / "data").storage, tmp_path / "backups"
    old, current = folder / "umrgen-2026-11-20T03-30-00Z.partial", folder / "umrgen-2026-11-23T03-29-00Z.partial"
    for path in (old, current):
        path.mkdir(parents=True)
    back_up_dated(storage, folder, 7, NIGHT)
    assert (old.exists(), current.exists()) == (False, True)
