"""The copy of the database that a way back needs.

`python -m deploy.install.copies keep | put-back --config F --copy FILE`: run by a release's Python as the services'
user, in whose folders all of this lies. Root follows no link there.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from umrgen_core.config import load_settings
from umrgen_core.errors import UmrgenError
from umrgen_core.lock import StoreLock
from umrgen_core.sqlite import SqliteError, open_writer

LOCK_S = 30.0
REPLACED = "replaced"
"""Begins the names of the folders with databases that were in use; nobody but the owner removes one."""


def keep(database: Path, copy: Path) -> None:
    """Copy the closed database aside before an upgrade changes it. Pictures are not touched by that."""
    copy.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    _fold_log(database)
    _publish(database, copy)


def put_back(database: Path, copy: Path) -> Path | None:
    """Let a copy take the place of the closed database, at one instant; the folder where the newer one is kept."""
    kept = _set_aside(database, copy.parent) if database.exists() else None
    for suffix in ("-wal", "-shm"):  # empty, if there at all: what they said is in the database that was set aside
        database.with_name(database.name + suffix).unlink(missing_ok=True)
    _publish(copy, database)
    copy.unlink()  # it is in use now, and no copy of what was before any more
    return kept


def _fold_log(database: Path) -> None:
    """Bring what SQLite's log says into the database itself, which is then one file."""
    connection = open_writer(database)
    try:
        busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    finally:
        connection.close()
    if busy:
        raise SqliteError("another process reads it")


def _set_aside(database: Path, folder: Path) -> Path:
    _fold_log(database)
    number = 1 + len(list(folder.glob(f"{REPLACED}-*")))
    while (kept := folder / f"{REPLACED}-{number}").exists():
        number += 1
    kept.mkdir(mode=0o700)
    try:
        os.link(database, kept / database.name)
    except OSError:  # on another file system
        _publish(database, kept / database.name)
    _sync(kept)
    _sync(folder)
    return kept


def _publish(source: Path, target: Path) -> None:
    """A copy that is there whole or not at all, also after a power cut."""
    new = target.with_name(f".{target.name}.new")
    new.unlink(missing_ok=True)
    subprocess.run(["cp", "--archive", "--reflink=auto", source, new], check=True)
    _sync(new)
    new.rename(target)
    _sync(target.parent)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def main() -> int:
    """Entry; prints where a newer database is kept. Problems go to stderr."""
    parser = argparse.ArgumentParser(prog="copies", description=__doc__)
    parser.add_argument("action", choices=("keep", "put-back"))
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--copy", type=Path, required=True)
    options = parser.parse_args()
    os.umask(0o077)
    try:
        storage = load_settings(options.config).storage
        with StoreLock(storage.data_dir).held(LOCK_S):  # given back when this process ends
            if options.action == "keep":
                keep(storage.database, options.copy)
            else:
                print(put_back(storage.database, options.copy) or "")
    except (UmrgenError, SqliteError, OSError, subprocess.CalledProcessError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
