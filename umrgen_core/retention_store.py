"""Rows past their time: deleted together with what belongs to them, a bounded number in a round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from umrgen_core.database import Database
from umrgen_core.files import Shelf
from umrgen_core.names import parse_output_name
from umrgen_core.sqlite import Connection

ROWS_PER_ROUND = 200
REPLAYS_PER_ROUND = 2000


@dataclass(frozen=True, slots=True)
class DoomedFile:
    """A file whose row has gone: it is unlinked next."""

    shelf: Shelf
    disk_name: str


@dataclass(frozen=True, slots=True)
class Expired:
    """What one round deleted: rows by kind, and the files that belonged to them."""

    jobs: int = 0
    references: int = 0
    replays: int = 0
    files: tuple[DoomedFile, ...] = ()


@dataclass(frozen=True, slots=True)
class KnownFile:
    """A file that a row names, and what it must be."""

    id: int
    disk_name: str
    sha256: str


class RetentionStore:
    """Expiry of jobs, outputs, references and replay records."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def expire(self) -> Sequence[DoomedFile]:
        """Delete rows that have expired and are not pinned; the files to unlink afterwards."""
        return (await self.sweep()).files

    async def sweep(self) -> Expired:
        """As `expire`, and says what the rows were."""
        found = await self._db.reader.one(self._db.statements.find_expired.sql, now_us=self._db.clock.wall_us())
        if found is None or not found["found"]:
            return Expired()
        return await self._db.writer.run(self._expire)

    async def count_expired(self, most: int) -> Expired:
        """Rows that a sweep would find, each kind counted no further than `most`; pinned ones are among them."""
        now_us = self._db.clock.wall_us()
        (row,) = await self._db.reader.all(self._db.statements.count_expired.sql, now_us=now_us, most=most)
        return Expired(row["jobs"], row["uploads"], row["replays"])

    def _expire(self, connection: Connection) -> Expired:
        statements, now_us = self._db.statements, self._db.clock.wall_us()
        doomed = []
        jobs = list(statements.list_expired_jobs(connection, now_us=now_us, most=ROWS_PER_ROUND))
        for row in jobs:
            output_id = statements.delete_ended_job(connection, id=row["id"])["output_id"]
            if output_id is not None:
                output = statements.delete_output(connection, id=output_id)
                doomed.append(DoomedFile(Shelf.OUTPUTS, output["disk_name"]))
        references = list(statements.list_expired_references(connection, now_us=now_us, most=ROWS_PER_ROUND))
        for row in references:
            reference = statements.delete_reference(connection, id=row["id"])
            doomed.append(DoomedFile(Shelf.REFERENCES, reference["disk_name"]))
        replays = statements.delete_expired_replays(connection, now_us=now_us, most=REPLAYS_PER_ROUND)
        return Expired(len(jobs), len(references), replays, tuple(doomed))

    async def is_named(self, shelf: Shelf, disk_name: str) -> bool:
        """Whether a row names the file, or may yet: that of a claim that is held. Nothing in `incoming` has one."""
        if shelf is Shelf.INCOMING:
            return False
        claim = parse_output_name(disk_name) if shelf is Shelf.OUTPUTS else None
        if claim is not None and await self._db.reader.one(
            self._db.statements.find_claim.sql, id=claim[0], fence=claim[1]
        ):
            return True
        statement = {
            Shelf.OUTPUTS: self._db.statements.find_output_file,
            Shelf.REFERENCES: self._db.statements.find_reference_file,
        }[shelf]
        return await self._db.reader.one(statement.sql, disk_name=disk_name) is not None

    async def next_file(self, shelf: Shelf, after: int) -> KnownFile | None:
        """The file of the row that follows id `after`; None behind the last."""
        statement = {
            Shelf.OUTPUTS: self._db.statements.next_output_file,
            Shelf.REFERENCES: self._db.statements.next_reference_file,
        }[shelf]
        row = await self._db.reader.one(statement.sql, after=after)
        return None if row is None else KnownFile(row["id"], row["disk_name"], row["sha256"])
