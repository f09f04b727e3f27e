"""Ending jobs at their agent's word, and erasing what is left of them."""

from __future__ import annotations

from dataclasses import dataclass

from umrgen_core.agents import Agent
from umrgen_core.database import Database
from umrgen_core.errors import FieldProblem, InvalidRequest, JobNotFound, ReferenceInUse
from umrgen_core.jobs import Job, JobState
from umrgen_core.rows import to_job
from umrgen_core.sqlite import Connection


@dataclass(frozen=True, slots=True)
class Erased:
    """A job that is no more. `disk_name` is the file of its output, which the caller unlinks."""

    job: Job
    disk_name: str | None
    cancelled: bool
    """Whether it was still queued, and so ended only now."""


class Cancellation:
    """Cancels and erases jobs, from the web tier's side."""

    def __init__(self, database: Database, retention_s: float) -> None:
        self._db = database
        self._retention_us = int(retention_s * 1e6)

    async def cancel(self, agent: Agent, job_id: str) -> Job:
        """End a queued job; ask the worker of a running one to. The job as it now stands.

        An ended job is left as it is. Raises JobNotFound.
        """
        job, ended = await self._db.writer.run(lambda connection: self._cancel(connection, agent, job_id))
        self._note_end(job, ended)
        return job

    async def erase(self, agent: Agent, job_id: str) -> Erased:
        """Delete an ended job with prompt, output and events; a queued one is cancelled first.

        Raises JobNotFound, InvalidRequest while it runs, ReferenceInUse while a live job names its output.
        """
        erased = await self._db.writer.run(lambda connection: self._erase(connection, agent, job_id))
        self._note_end(erased.job, erased.cancelled)
        return erased

    def _note_end(self, job: Job, ended: bool) -> None:
        if ended:
            self._db.meter.job_ended(job.model, JobState.CANCELLED, "")

    def _cancel(self, connection: Connection, agent: Agent, job_id: str) -> tuple[Job, bool]:
        """The job as it then stands, and whether it ended by this."""
        statements, now_us = self._db.statements, self._db.clock.wall_us()
        job = self._get(connection, agent, job_id)
        if job.state is JobState.QUEUED:
            statements.cancel_queued(connection, id=job_id, now_us=now_us, expires_at_us=now_us + self._retention_us)
            statements.release_pins(connection, job_id=job_id)
        elif job.state is JobState.RUNNING:
            statements.request_cancel(connection, id=job_id, now_us=now_us)
        else:
            return job, False
        return self._get(connection, agent, job_id), job.state is JobState.QUEUED

    def _erase(self, connection: Connection, agent: Agent, job_id: str) -> Erased:
        job = self._get(connection, agent, job_id)
        if job.state is JobState.RUNNING:
            problem = "the job is running: cancel it, wait for its end, then erase it"
            raise InvalidRequest([FieldProblem("erase", problem)])
        job, cancelled = self._cancel(connection, agent, job_id)
        statements = self._db.statements
        if job.output is not None and statements.is_output_pinned(connection, id=job.output.id)[0]:
            raise ReferenceInUse("A queued or running job names this picture. Wait for it to end, then erase.")
        connection.execute("PRAGMA secure_delete=ON")  # overwrite the prompt, do not merely forget it
        try:
            statements.delete_ended_job(connection, id=job_id)
            if job.output is None:
                return Erased(job, None, cancelled)
            row = statements.delete_output(connection, id=job.output.id)
            return Erased(job, row["disk_name"], cancelled)
        finally:
            connection.execute("PRAGMA secure_delete=OFF")

    def _get(self, connection: Connection, agent: Agent, job_id: str) -> Job:
        row = self._db.statements.get_job(connection, id=job_id)
        expired = row is not None and (row["expires_at_us"] or float("inf")) <= self._db.clock.wall_us()
        if row is None or expired or row["agent_id"] != agent.id:
            raise JobNotFound
        return to_job(row)
