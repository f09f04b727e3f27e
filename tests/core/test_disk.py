from __future__ import annotations

from pathlib import Path

import pytest

from umrgen_core.disk import DiskGuard
from umrgen_core.errors import Unavailable
from umrgen_core.sections import StorageSettings

MB = 1 << 20


class Disk(DiskGuard):
    """A guard over a disk whose free room the test sets."""

    free = 0

    def free_bytes(self) -> int:
        return self.free


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(StorageSettings(data_dir=tmp_path, disk_floor_bytes=100 * MB, ballast_bytes=4 * MB))


def test_the_ballast_is_laid_in_released_and_laid_in_again(disk: Disk) -> None:
    disk.free = 104 * MB
    assert disk.tend() is None
    disk.free = 200 * MB
    assert disk.tend() == "laid_in"
    assert disk.ballast.stat().st_blocks * 512 >= 4 * MB  # real blocks, not a hole
    assert disk.tend() is None
    disk.free = 50 * MB
    assert disk.tend() is None
    disk.free = 3 * MB
    assert disk.tend() == "released"
    assert not disk.ballast.exists()
    disk.free = 105 * MB
    assert disk.tend() is None
    disk.free = 109 * MB
    assert disk.tend() == "laid_in"


def test_below_the_floor_there_is_no_room(disk: Disk) -> None:
    disk.free = 100 * MB
    disk.require_room()
    disk.free = 100 * MB - 1
    with pytest.raises(Unavailable):
        disk.require_room()


def test_no_ballast_is_laid_in_when_none_is_wanted(tmp_path: Path) -> None:
    disk = Disk(StorageSettings(data_dir=tmp_path, disk_floor_bytes=0, ballast_bytes=0))
    disk.free = 1 << 40
    assert disk.tend() is None
    assert not disk.ballast.exists()


def test_the_real_disk_is_measured(tmp_path: Path) -> None:
    assert DiskGuard(StorageSettings(data_dir=tmp_path)).free_bytes() > 0
