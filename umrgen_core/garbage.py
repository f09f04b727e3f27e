"""What nobody needs any more, found and thrown away on demand: the web tier's upkeep, for the owner's hand.

A file that no row names may still get its row while the process lives that published it. The web tier waits
until it has seen such a file twice, further apart than any deadline. A command cannot wait: it deletes one only
when no process had the store open after the file was seen, so that nobody is left to give it a row.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

from umrgen_core.checkpoint import Shrunk, vacuum, write_back
from umrgen_core.config import Settings
from umrgen_core.database import Database
from umrgen_core.errors import OperatorError
from umrgen_core.files import FileStore, Shelf
from umrgen_core.presence import list_living
from umrgen_core.retention_store import DoomedFile, Expired, RetentionStore
from umrgen_core.wakeup import Hints

MOST_COUNTED = 100_000


@dataclass(frozen=True, slots=True)
class Orphan:
    """A file that no row names."""

    shelf: Shelf
    disk_name: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Garbage:
    """What was found, and unless it was only looked at thrown away.

    `others` is how many other processes have the store open; then orphans are left to the web tier.
    """

    expired: Expired
    orphans: tuple[Orphan, ...]
    orphans_deleted: bool
    leftovers: tuple[str, ...]
    """Names in the run directory that dead processes left."""
    others: int
    shrunk: Shrunk | None


class GarbageCollection:
    """One round over everything. The clock must be right: what expires is judged by wall time."""

    def __init__(self, database: Database, settings: Settings, hints: Hints) -> None:
        self._retention = RetentionStore(database)
        self._storage = settings.storage
        self._files = FileStore(settings.storage.data_dir)
        self._hints = hints

    async def look(self) -> Garbage:
        """What there is. Nothing is changed."""
        orphans, others = await self._find_orphans()
        expired = await self._retention.count_expired(MOST_COUNTED)
        leftovers = await asyncio.to_thread(self._find_leftovers)
        return Garbage(expired, orphans, orphans_deleted=False, leftovers=leftovers, others=others, shrunk=None)

    async def collect(self, *, shrink: bool = False) -> Garbage:
        """Throw it away; with `shrink` write the database anew too.

        Raises OperatorError where that cannot be while other processes live, Unavailable.
        """
        orphans, others = await self._find_orphans()
        if shrink and others:
            raise OperatorError(f"--vacuum needs the store to itself, {others} processes have it open: stop both first")
        if not others:
            await asyncio.to_thread(self._delete_orphans, orphans)
        expired = await self._expire()
        leftovers = await asyncio.to_thread(self._delete_leftovers)
        shrunk = await asyncio.to_thread(vacuum if shrink else write_back, self._storage)
        return Garbage(expired, orphans, bool(orphans) and not others, leftovers, others, shrunk)

    async def _find_orphans(self) -> tuple[tuple[Orphan, ...], int]:
        """Files without a row, and how many other processes live.

        First the files, then who lives, then the rows: with nobody alive in between, what was on disk before and
        has no row after will never have one.
        """
        found = await asyncio.to_thread(self._list_files)
        others = await asyncio.to_thread(self._count_others)
        orphans = [file for file in found if not await self._retention.is_named(file.shelf, file.disk_name)]
        return tuple(orphan for orphan in orphans if self._files.exists(orphan.shelf, orphan.disk_name)), others

    def _list_files(self) -> list[Orphan]:
        self._files.prepare()
        found = []
        for shelf, name in self._files.walk():
            try:
                found.append(Orphan(shelf, name, self._files.path(shelf, name).stat().st_size))
            except FileNotFoundError:  # expired meanwhile
                continue
        return found

    def _count_others(self) -> int:
        return len(list_living(self._storage.data_dir)) - 1  # one is this process

    def _delete_orphans(self, orphans: tuple[Orphan, ...]) -> None:
        for orphan in orphans:
            self._files.delete(orphan.shelf, orphan.disk_name)

    async def _expire(self) -> Expired:
        jobs = references = replays = 0
        files: list[DoomedFile] = []
        while (round_ := await self._retention.sweep()) != Expired():
            jobs, references, replays = jobs + round_.jobs, references + round_.references, replays + round_.replays
            for doomed in round_.files:
                await asyncio.to_thread(self._files.delete, doomed.shelf, doomed.disk_name)
            files += round_.files
        return Expired(jobs, references, replays, tuple(files))

    def _find_leftovers(self) -> tuple[str, ...]:
        unborn = [path.name for path in self._run.glob("*.new") if not _is_alive(path)]
        return (*self._hints.list_dead(), *sorted(unborn))

    def _delete_leftovers(self) -> tuple[str, ...]:
        found = self._find_leftovers()
        for name in found:
            (self._run / name).unlink(missing_ok=True)
        return found

    @property
    def _run(self) -> Path:
        return self._storage.data_dir / "run"


def _is_alive(marker: Path) -> bool:
    """Whether the process lives that a marker in the making is named after. It may not hold it yet."""
    pid = marker.name.partition("-")[0]
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        return True
    return True
