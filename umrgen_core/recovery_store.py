"""What becomes of jobs whose worker is lost, or for which none came in time.

Both processes see to it, each second and at the same time if it comes to that: what one has done the other does not
find any more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from umrgen_core.config import Settings
from umrgen_core.database import Database
from umrgen_core.job_ends import JobEnds
from umrgen_core.jobs import ErrorCode, JobState
from umrgen_core.logs import get_logger
from umrgen_core.sqlite import Connection, Row

LOG = get_logger("recovery")


@dataclass(frozen=True, slots=True)
class Recovered:
    """What recovery did with one job."""

    job_id: str
    agent: str
    fence: int
    request_id: str
    model: str
    state: JobState
    reason: str


class RecoveryStore:
    """Rows of `jobs` that nobody looks after any more."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._db = database
        self._queue_ttl_s = settings.jobs.queue_ttl_s
        self._ends = JobEnds(database, settings)

    async def recover_lost(self) -> Sequence[Recovered]:
        """End or requeue what lost its worker, and end what waited too long. Idle, it only reads."""
        moment = self._read_moment()
        lost = await self._db.reader.all(self._db.statements.list_lost.sql, **moment)
        overdue = await self._db.reader.all(self._db.statements.list_overdue.sql, **moment)
        if not lost and not overdue:
            return ()
        recovered = await self._db.writer.run(self._recover)
        for one in recovered:
            self._note_recovery(one)
        return recovered

    def _note_recovery(self, one: Recovered) -> None:
        LOG.warning(
            "job_recovered",
            job_id=one.job_id,
            agent=one.agent,
            fence=one.fence,
            request_id=one.request_id,
            model=one.model,
            state=one.state.value,
            reason=one.reason,
        )
        if one.state is JobState.QUEUED:
            self._db.meter.job_requeued(one.model, one.reason)
        else:
            self._db.meter.job_ended(one.model, one.state, one.reason if one.state is JobState.FAILED else "")

    def _recover(self, connection: Connection) -> list[Recovered]:
        statements, moment = self._db.statements, self._read_moment()
        lost = list(statements.list_lost(connection, **moment))
        overdue = list(statements.list_overdue(connection, **moment))
        recovered = [self._recover_one(connection, row) for row in lost]
        return recovered + [self._end_overdue(connection, row) for row in overdue]

    def _recover_one(self, connection: Connection, row: Row) -> Recovered:
        job_id, fence, attempts = row["id"], row["fence"], row["attempts"]
        if row["cancel_requested_at_us"] is not None:
            self._ends.cancel(connection, job_id, fence)
            return _tell(row, JobState.CANCELLED, "cancel requested")
        error = (
            f"The worker was lost in each of {attempts} attempts."
            " Submit the job again; if it fails again, tell the owner of the service."
        )
        failed_with = self._ends.let_go(connection, job_id, fence, attempts, error)
        return _tell(row, JobState.FAILED if failed_with else JobState.QUEUED, ErrorCode.WORKER_LOST)

    def _end_overdue(self, connection: Connection, row: Row) -> Recovered:
        self._db.statements.fail_overdue(
            connection,
            id=row["id"],
            error_code=ErrorCode.TIMEOUT,
            error=f"No worker took the job within {self._queue_ttl_s:g} s. Submit it again later.",
            **self._read_moment(),
            **self._ends.read_times(),
        )
        self._db.statements.release_pins(connection, job_id=row["id"])
        return _tell(row, JobState.FAILED, ErrorCode.TIMEOUT)

    async def adopt_queue(self) -> None:
        """Once at start: after a reboot the time of queued jobs starts anew, unknown time having passed."""
        boot_id = self._db.clock.boot_id

        def work(connection: Connection) -> None:
            self._db.statements.restart_queue_time(
                connection, boot_id=boot_id, queue_until_boot_ms=self._ends.queue_until_ms()
            )

        if await self._db.reader.one(self._db.statements.find_foreign_boot.sql, boot_id=boot_id):
            await self._db.writer.run(work)

    def _read_moment(self) -> Mapping[str, str | int]:
        """Now in boot time, as the statements take it."""
        return {"boot_id": self._db.clock.boot_id, "now_boot_ms": self._db.clock.boot_ms()}


def _tell(row: Row, state: JobState, reason: str) -> Recovered:
    return Recovered(row["id"], row["agent"], row["fence"], row["request_id"], row["model"], state, reason)
