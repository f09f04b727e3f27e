"""The moments of a start after an unclean stop: damage found at once, a busy store, two that look at one marker."""

from __future__ import annotations

import asyncio
import fcntl
import time
from pathlib import Path

import pytest

from tests.conftest import FakeClock, make_settings
from tests.faults.harness import read_rows
from tests.faults.test_clocks import serve_web
from tests.faults.test_unclean_stop import damage_table
from umrgen_core import integrity
from umrgen_core.config import Settings
from umrgen_core.files import FileStore
from umrgen_core.presence import is_held

LOCK_TIMEOUT_S = 0.3


@pytest.fixture
async def settings(tmp_path: Path, clock: FakeClock) -> Settings:
    """A store whose last user was killed, with one job in its queue."""
    data_dir = tmp_path / "data"
    chosen = make_settings(data_dir, storage={"data_dir": str(data_dir), "lock_timeout_s": LOCK_TIMEOUT_S})
    async with serve_web(chosen, clock) as tier:
        await tier.submit()
    (data_dir / "run" / "9-dead.open").touch()
    return chosen


async def test_a_web_tier_listens_also_when_the_damage_is_found_before_it_is_up(
    settings: Settings, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage_table(settings.storage.data_dir, "outputs")
    really_prepare = FileStore.prepare
    monkeypatch.setattr(FileStore, "prepare", lambda files: (really_prepare(files), time.sleep(0.5)))
    async with asyncio.timeout(10), serve_web(settings, clock) as tier, tier.session.get("/readyz") as answer:
        assert (await answer.json())["reasons"] == ["the store is damaged"]


async def test_a_store_that_is_busy_when_the_check_ends_is_made_ready_later(
    settings: Settings, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_check = integrity.check_integrity
    monkeypatch.setattr(integrity, "check_integrity", lambda path: (time.sleep(0.5), really_check(path)))
    clock.reboot()
    with open(settings.storage.data_dir / "store.lock", "rb+") as lock:  # noqa: ASYNC230 - the lock of another process
        fcntl.flock(lock, fcntl.LOCK_EX)
        async with serve_web(settings, clock) as tier:
            await asyncio.sleep(0.5 + 3 * LOCK_TIMEOUT_S)
            fcntl.flock(lock, fcntl.LOCK_UN)
            await asyncio.sleep(2)
            (row,) = read_rows(settings.storage.data_dir, "SELECT queue_boot_id FROM jobs")
            assert row["queue_boot_id"] == clock.boot_id
            assert (await tier.status("ext_none"))["http"] == 404


def test_two_that_look_at_a_dead_marker_at_once_both_see_that_it_is_dead(tmp_path: Path) -> None:
    marker = tmp_path / "9-dead.open"
    marker.touch()
    with open(marker, "rb+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert is_held(marker)
    with open(marker, "rb+") as other:
        fcntl.flock(other, fcntl.LOCK_SH)  # somebody else is looking
        assert not is_held(marker)
