"""Copies of the whole store: taken while it is in use, put back while it is not.

A backup is a folder: the database as of one instant (VACUUM INTO: copying the file would lose rows), and
every file that its rows name. It appears under its final name only when it is whole and synced.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from umrgen_core.errors import ConfigError, SchemaError
from umrgen_core.files import FileStore, Shelf
from umrgen_core.presence import check_integrity, list_living
from umrgen_core.schema import check_version, find_version
from umrgen_core.sections import StorageSettings
from umrgen_core.sqlite import SqliteError, open_reader

SECRET_NAME = "secret"  # noqa: S105 - a name of a file
"""The master of the webhooks' secrets, where [auth] secret_file names no other place."""

LAST_NAME = "last-backup"
"""An empty file in the data directory, as old as the newest backup."""

KEPT = {Shelf.OUTPUTS: "outputs", Shelf.REFERENCES: '"references"'}


@dataclass(frozen=True, slots=True)
class BackupReport:
    """What was copied. `missing` are files that a row names and the disk does not have."""

    folder: Path
    files: int
    bytes: int
    missing: tuple[str, ...]


def back_up(storage: StorageSettings, target: Path) -> BackupReport:
    """Copy the store to `target`, which must not exist. Raises ConfigError or SchemaError."""
    if target.exists():
        raise ConfigError(f"{target} exists already; name a folder that does not")
    check_version(find_version(storage.database), storage.database)
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True, mode=0o700)
    database = partial / storage.database.name
    _snapshot(storage.database, database)
    report = _copy_files(storage.data_dir, partial, database)
    _sync_tree(partial)
    partial.rename(target)
    _sync(target.parent)
    _note_time(storage.data_dir / LAST_NAME)
    return BackupReport(target, *report)


def restore(storage: StorageSettings, source: Path) -> BackupReport:
    """Put the backup in `source` in the place of the store, which no process may have open.

    What stood there is kept beside it as `<data_dir>.before-restore`. Raises ConfigError or SchemaError.
    """
    database = source / storage.database.name
    check_version(find_version(database), database)
    check_integrity(database)
    if list_living(storage.data_dir):
        raise ConfigError("the store is in use: stop umrgen-api and umrgen-infer first")
    before = storage.data_dir.with_name(storage.data_dir.name + ".before-restore")
    if before.exists():
        raise ConfigError(f"{before} exists already: move it away, it is what an earlier restore replaced")
    partial = storage.data_dir.with_name(storage.data_dir.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True, mode=0o700)
    shutil.copy2(database, partial / database.name)
    report = _copy_files(source, partial, database)
    secret = storage.data_dir / SECRET_NAME
    if secret.exists():  # no backup holds it: the box's own stays, so that receivers can go on verifying
        shutil.copy2(secret, partial / secret.name)
    _sync_tree(partial)
    if storage.data_dir.exists():
        storage.data_dir.rename(before)
    partial.rename(storage.data_dir)
    _sync(storage.data_dir.parent)
    return BackupReport(storage.data_dir, *report)


def _note_time(path: Path) -> None:
    """For whoever watches. Made anew, since it may be another user's; a backup is none the worse without it."""
    with suppress(OSError):
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)


def _snapshot(source: Path, target: Path) -> None:
    try:
        connection = open_reader(source)
        try:
            connection.execute("PRAGMA query_only=OFF")  # VACUUM INTO writes another file, never this one
            connection.execute("VACUUM INTO ?", (str(target),))
        finally:
            connection.close()
    except SqliteError as error:
        raise SchemaError(f"{source} could not be copied: {error}") from None


def _copy_files(source: Path, target: Path, database: Path) -> tuple[int, int, tuple[str, ...]]:
    files, copies = FileStore(source), FileStore(target)
    copies.prepare()
    count, size, missing = 0, 0, []
    for shelf, name in _list_named(database):
        try:
            shutil.copy2(files.path(shelf, name), copies.path(shelf, name))
        except FileNotFoundError:
            missing.append(f"{shelf}/{name}")
            continue
        count += 1
        size += copies.path(shelf, name).stat().st_size
    return count, size, tuple(missing)


def _list_named(database: Path) -> list[tuple[Shelf, str]]:
    connection = open_reader(database)
    try:
        return [
            (shelf, row[0])
            for shelf, table in KEPT.items()
            for row in connection.execute(f"SELECT disk_name FROM {table} ORDER BY id")  # noqa: S608 - our own names
        ]
    finally:
        connection.close()


def _sync_tree(folder: Path) -> None:
    for path in folder.rglob("*"):
        _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
