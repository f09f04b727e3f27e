"""Uploaded images in the store."""

from __future__ import annotations

from dataclasses import dataclass

from umrgen_core.agents import Agent
from umrgen_core.database import Database
from umrgen_core.errors import NotFound, QuotaExceeded, ReferenceInUse
from umrgen_core.jobs import Output, Reference
from umrgen_core.rows import to_output, to_reference
from umrgen_core.sqlite import Connection


@dataclass(frozen=True, slots=True)
class NewReference:
    """A sanitised upload that has been published on disk and now wants its row."""

    filename: str
    disk_name: str
    format: str
    width: int
    height: int
    bytes: int
    sha256: str
    source_sha256: str
    source_width: int
    source_height: int
    source_bytes: int
    source_format: str


class ReferenceStore:
    """Rows of `references`, and the look-up of any picture by its public name."""

    def __init__(self, database: Database, retention_s: float) -> None:
        self._db = database
        self._retention_us = int(retention_s * 1e6)

    async def find(self, filename: str) -> Reference | None:
        """The live reference with this public name, whoever's it is."""
        row = await self._db.reader.one(self._db.statements.find_reference.sql, filename=filename)
        return None if row is None or row["expires_at_us"] <= self._db.clock.wall_us() else to_reference(row)

    async def find_output(self, filename: str) -> Output | None:
        """The live output with this public name, whoever's it is."""
        row = await self._db.reader.one(self._db.statements.find_output.sql, filename=filename)
        return None if row is None or row["expires_at_us"] <= self._db.clock.wall_us() else to_output(row)

    async def find_upload(self, agent_id: int, source_sha256: str) -> Reference | None:
        """The agent's earlier upload of the same bytes, live or not."""
        row = await self._db.reader.one(
            self._db.statements.find_upload.sql, agent_id=agent_id, source_sha256=source_sha256
        )
        return None if row is None else to_reference(row)

    async def list_live(self, agent_id: int) -> list[Reference]:
        """The agent's references, newest first."""
        rows = await self._db.reader.all(
            self._db.statements.list_references.sql, agent_id=agent_id, now_us=self._db.clock.wall_us()
        )
        return [to_reference(row) for row in rows]

    async def renew(self, reference: Reference) -> Reference | None:
        """Count the retention anew; None when the row has gone meanwhile."""

        def work(connection: Connection) -> Reference | None:
            self._db.statements.renew_reference(
                connection, id=reference.id, expires_at_us=self._db.clock.wall_us() + self._retention_us
            )
            row = self._db.statements.find_reference(connection, filename=reference.filename)
            return None if row is None else to_reference(row)

        return await self._db.writer.run(work)

    async def put(self, agent: Agent, new: NewReference, lost: str | None = None) -> Reference:
        """Keep `new`, unless a row of the same bytes is there, and return the row that stands.

        That row gets new's file only when the one it names is `lost`; when the returned disk_name is not
        new's, new's file is not needed. Raises QuotaExceeded.
        """

        def work(connection: Connection) -> Reference:
            return self._put(connection, agent, new, lost)

        return await self._db.writer.run(work)

    def _put(self, connection: Connection, agent: Agent, new: NewReference, lost: str | None) -> Reference:
        statements = self._db.statements
        now_us = self._db.clock.wall_us()
        expires_at_us = now_us + self._retention_us
        earlier = statements.find_upload(connection, agent_id=agent.id, source_sha256=new.source_sha256)
        if earlier is None:
            self._check_quota(connection, agent, new)
            values = {name: getattr(new, name) for name in NewReference.__dataclass_fields__}
            statements.insert_reference(
                connection, agent_id=agent.id, now_us=now_us, expires_at_us=expires_at_us, **values
            )
        elif earlier["disk_name"] != lost:
            statements.renew_reference(connection, id=earlier["id"], expires_at_us=expires_at_us)
        else:
            statements.replace_file(
                connection,
                id=earlier["id"],
                disk_name=new.disk_name,
                bytes=new.bytes,
                sha256=new.sha256,
                expires_at_us=expires_at_us,
            )
        row = statements.find_upload(connection, agent_id=agent.id, source_sha256=new.source_sha256)
        return to_reference(row)

    def _check_quota(self, connection: Connection, agent: Agent, new: NewReference) -> None:
        usage = self._db.statements.get_usage(connection, agent_id=agent.id)
        if usage["used_references"] >= agent.limits.references:
            raise QuotaExceeded(
                f"You keep {usage['used_references']} references, your limit is {agent.limits.references}."
                " Delete some with DELETE /api/v1/references/{filename}.",
                extra={"quota": "references", "limit": agent.limits.references, "used": usage["used_references"]},
            )
        if usage["used_reference_bytes"] + new.bytes > agent.limits.reference_bytes:
            raise QuotaExceeded(
                f"Your references hold {usage['used_reference_bytes']} bytes and this one {new.bytes};"
                f" your limit is {agent.limits.reference_bytes}."
                " Delete some with DELETE /api/v1/references/{filename}.",
                extra={
                    "quota": "reference_bytes",
                    "limit": agent.limits.reference_bytes,
                    "used": usage["used_reference_bytes"],
                },
            )

    async def delete(self, agent: Agent, filename: str) -> str:
        """Delete the agent's reference; the name of its file on disk, which the caller unlinks.

        Raises NotFound, or ReferenceInUse while a queued or running job names it.
        """

        def work(connection: Connection) -> str:
            statements = self._db.statements
            row = statements.find_reference(connection, filename=filename)
            if row is None or row["agent_id"] != agent.id:
                raise NotFound("No reference of yours has this name.")
            if statements.is_reference_pinned(connection, id=row["id"])[0]:
                raise ReferenceInUse(
                    "A queued or running job names this reference. Wait for the job to end, then delete it."
                )
            disk_name: str = statements.delete_reference(connection, id=row["id"])["disk_name"]
            return disk_name

        return await self._db.writer.run(work)
