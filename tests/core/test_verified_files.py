from __future__ import annotations

import os
from pathlib import Path

import pytest

from umrgen_core.files import FileStore, Published, Shelf
from umrgen_core.verified_files import VerifiedFiles


@pytest.fixture
def files(tmp_path: Path) -> FileStore:
    store = FileStore(tmp_path)
    store.prepare()
    return store


@pytest.fixture
def published(files: FileStore) -> Published:
    return files.publish_bytes(Shelf.OUTPUTS, "a.png", b"picture")


def look(verified: VerifiedFiles, published: Published, **options: bool) -> bool:
    return verified.is_whole(Shelf.OUTPUTS, published.disk_name, published.sha256, **options)


def test_a_whole_file_is_whole_and_a_missing_one_is_not(files: FileStore, published: Published) -> None:
    verified = VerifiedFiles(files)
    assert look(verified, published)
    files.delete(Shelf.OUTPUTS, "a.png")
    assert not look(verified, published)


def test_damage_before_the_first_look_is_seen(files: FileStore, published: Published) -> None:
    files.path(Shelf.OUTPUTS, "a.png").write_bytes(b"picturE")
    assert not look(VerifiedFiles(files), published)


@pytest.mark.parametrize("damage", ["longer", "new inode", "new time"])
def test_any_change_of_size_inode_or_time_makes_it_look_again(
    files: FileStore, published: Published, damage: str
) -> None:
    verified = VerifiedFiles(files)
    assert look(verified, published)
    path = files.path(Shelf.OUTPUTS, "a.png")
    status = path.stat()
    if damage == "new inode":
        other = path.with_name("b")
        other.write_bytes(b"picturE")
        other.rename(path)
    else:
        path.write_bytes(b"picturE" + b"x" * (damage == "longer"))
    if damage != "new time":
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert not look(verified, published)


def test_silent_damage_is_found_by_looking_again(files: FileStore, published: Published) -> None:
    verified = VerifiedFiles(files)
    assert look(verified, published)
    path = files.path(Shelf.OUTPUTS, "a.png")
    status = path.stat()
    path.write_bytes(b"picturE")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert look(verified, published)  # size, inode and time are all that a serve pays for
    assert not look(verified, published, look_again=True)
    assert not look(verified, published)  # … and from then on it is known
