"""Changes of jobs as rows: read to learn what is new, and to give a stream its ids."""

from __future__ import annotations

from dataclasses import dataclass

from umrgen_core.database import Database

MOST_CHANGES = 1000


@dataclass(frozen=True, slots=True)
class Event:
    """A change of a job. `kind` is `state`, `progress` or `done`; ids only grow."""

    id: int
    kind: str


class EventStore:
    """Rows of `events`."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def find_newest(self) -> int:
        """The id of the last change of any job; 0 before the first."""
        row = await self._db.reader.one(self._db.statements.newest_event.sql)
        return 0 if row is None else int(row["id"])

    async def list_changed(self, after: int) -> tuple[int, set[str], bool]:
        """The id to ask behind next time, the jobs that changed behind `after`, and whether there are more."""
        rows = await self._db.reader.all(self._db.statements.list_changes.sql, after=after, most=MOST_CHANGES)
        return (rows[-1]["id"] if rows else after), {row["job_id"] for row in rows}, len(rows) == MOST_CHANGES

    async def find_last(self, job_id: str) -> Event | None:
        """The last change of a job, or None when it is gone."""
        row = await self._db.reader.one(self._db.statements.last_event.sql, job_id=job_id)
        return None if row is None else Event(row["id"], row["kind"])
