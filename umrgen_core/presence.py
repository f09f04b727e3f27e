"""Whether the store was left in good order.

Each process keeps a marker in the run directory, locked for as long as it lives and removed when it
stops cleanly. A marker that nobody holds belongs to a process that was killed, or to a machine that
lost power: whoever finds one checks the database before anything is written.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from umrgen_core.errors import SchemaError
from umrgen_core.sqlite import SqliteError, open_reader

SUFFIX = ".open"


class Presence:
    """The marker of this process. Descriptors are close-on-exec: a child never keeps it alive."""

    def __init__(self, data_dir: Path, process_id: str) -> None:
        self._folder = data_dir / "run"
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path = self._folder / f"{process_id}{SUFFIX}"
        unseen = self._folder / f"{process_id}.new"
        self._fd = os.open(unseen, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        unseen.rename(self._path)  # only now can others look at it, and they find it locked
        self._sync_folder()

    def _sync_folder(self) -> None:
        """A marker that a power cut forgets would make the stop look clean."""
        fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def list_abandoned(self) -> list[Path]:
        """Markers of processes that ended without removing them."""
        others = [path for path in self._folder.glob(f"*{SUFFIX}") if path != self._path]
        return [path for path in others if not is_held(path) and path.exists()]  # one may have been withdrawn

    def forget(self, markers: list[Path]) -> None:
        """Remove markers once the database has been checked."""
        for path in markers:
            path.unlink(missing_ok=True)

    def withdraw(self) -> None:
        """Stop in good order."""
        self._path.unlink(missing_ok=True)
        os.close(self._fd)


def is_held(marker: Path) -> bool:
    """Whether a living process holds the marker."""
    with suppress(FileNotFoundError):
        fd = os.open(marker, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two that look do not hinder each other
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
    return False


def list_living(data_dir: Path) -> list[Path]:
    """Markers of the processes that have the store open now."""
    return [path for path in (data_dir / "run").glob(f"*{SUFFIX}") if is_held(path)]


def check_integrity(database: Path) -> None:
    """Read the whole database. Raises SchemaError with the way out when it is damaged. Blocks."""
    try:
        connection = open_reader(database)
        try:
            rows = connection.execute("PRAGMA quick_check(5)").fetchall()
            broken = connection.execute("PRAGMA foreign_key_check").fetchmany(5)
        finally:
            connection.close()
    except SqliteError as error:
        raise SchemaError(_way_out(database, str(error))) from None
    if [row[0] for row in rows] != ["ok"]:
        raise SchemaError(_way_out(database, str(rows[0][0]).splitlines()[-1]))
    if broken:
        raise SchemaError(_way_out(database, f"a row of {broken[0][0]} names one that does not exist"))


def _way_out(database: Path, problem: str) -> str:
    return (
        f"{database} is damaged ({problem}). Stop both processes and restore the last backup:"
        " umrgen-admin restore --config config.toml BACKUP"
    )
