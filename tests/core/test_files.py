from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import pytest

from umrgen_core.files import FileStore, Shelf

CONTENT = b"a picture" * 1000


@pytest.fixture
def files(tmp_path: Path) -> FileStore:
    store = FileStore(tmp_path)
    store.prepare()
    return store


def list_incoming(files: FileStore) -> list[Path]:
    return list(files.path(Shelf.INCOMING, "").iterdir())


def watch_disk(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The order in which files and folders are synced and renamed from here on; everything still happens."""
    steps: list[str] = []
    real_fsync, real_rename = os.fsync, Path.rename

    def fsync(fd: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(fd).st_mode)
        steps.append(f"sync {'folder ' + Path(f'/proc/self/fd/{fd}').readlink().name if is_folder else 'file'}")
        real_fsync(fd)

    def rename(source: Path, target: Path) -> Path:
        steps.append(f"rename to {Path(target).parent.name}")
        return real_rename(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", rename)
    return steps


def test_a_published_file_is_whole_and_described(files: FileStore) -> None:
    published = files.publish_bytes(Shelf.OUTPUTS, "a.png", CONTENT)
    assert files.read(Shelf.OUTPUTS, "a.png") == CONTENT
    assert published.disk_name == "a.png"
    assert published.bytes == len(CONTENT)
    assert published.sha256 == hashlib.sha256(CONTENT).hexdigest()


def test_a_file_is_synced_before_it_gets_its_name_and_its_folder_after(
    files: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = watch_disk(monkeypatch)
    files.publish_bytes(Shelf.REFERENCES, "a.png", CONTENT)
    assert steps == ["sync file", "rename to references", "sync folder references"]


def test_everything_written_is_in_the_file_before_it_is_synced(
    files: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    real_fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (sizes.append(os.fstat(fd).st_size), real_fsync(fd))[1])
    files.publish_bytes(Shelf.OUTPUTS, "a.png", b"x")
    assert sizes[0] == 1


def test_a_file_that_cannot_be_synced_never_gets_its_name(files: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="Input/output"):
        files.publish_bytes(Shelf.OUTPUTS, "a.png", CONTENT)
    assert not files.exists(Shelf.OUTPUTS, "a.png")
    assert list_incoming(files) == []


def test_nothing_stays_behind_after_a_publication(files: FileStore) -> None:
    files.publish_bytes(Shelf.OUTPUTS, "a.png", CONTENT)
    assert list_incoming(files) == []


def test_what_is_not_published_is_deleted(files: FileStore) -> None:
    with files.incoming() as (file, path):
        file.write(CONTENT)
        assert list_incoming(files) == [path]
    assert list_incoming(files) == []


def test_what_fails_on_its_way_in_is_deleted(files: FileStore) -> None:
    def receive() -> None:
        with files.incoming() as (file, _):
            file.write(CONTENT)
            raise ValueError("client went away")

    with pytest.raises(ValueError, match="client went away"):
        receive()
    assert list_incoming(files) == []


def test_an_incoming_file_can_be_written_and_read_back(files: FileStore) -> None:
    with files.incoming() as (file, path):
        file.write(CONTENT)
        file.seek(0)
        assert file.read() == CONTENT
        files.publish(Shelf.REFERENCES, "b.png", path)
    assert files.read(Shelf.REFERENCES, "b.png") == CONTENT


def test_a_file_on_one_shelf_is_on_no_other(files: FileStore) -> None:
    files.publish_bytes(Shelf.OUTPUTS, "a.png", CONTENT)
    assert files.exists(Shelf.OUTPUTS, "a.png")
    assert not files.exists(Shelf.REFERENCES, "a.png")


def test_deleting_twice_is_no_error(files: FileStore) -> None:
    files.publish_bytes(Shelf.OUTPUTS, "a.png", CONTENT)
    files.delete(Shelf.OUTPUTS, "a.png")
    files.delete(Shelf.OUTPUTS, "a.png")
    assert not files.exists(Shelf.OUTPUTS, "a.png")


def test_reading_what_is_gone_says_so(files: FileStore) -> None:
    with pytest.raises(FileNotFoundError):
        files.read(Shelf.OUTPUTS, "a.png")


def test_preparing_again_keeps_what_is_there(files: FileStore) -> None:
    files.publish_bytes(Shelf.OUTPUTS, "a.png", CONTENT)
    files.prepare()
    assert files.read(Shelf.OUTPUTS, "a.png") == CONTENT


@pytest.mark.parametrize("shelf", Shelf)
def test_only_the_owner_may_look_at_a_shelf(files: FileStore, shelf: Shelf) -> None:
    assert stat.S_IMODE(files.path(shelf, "").stat().st_mode) == 0o700
