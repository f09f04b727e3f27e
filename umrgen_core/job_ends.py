"""How a running job ends or goes back to the queue, at the word of its worker or of recovery.

Each write is part of a transaction of the caller's and names the fence of a claim; a row that does not come back
raises StaleClaim.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from umrgen_core.config import Settings
from umrgen_core.database import Database
from umrgen_core.errors import StaleClaim
from umrgen_core.jobs import Claim, ErrorCode
from umrgen_core.sqlite import Connection, Row


@dataclass(frozen=True, slots=True)
class NewOutput:
    """A picture that has been published on disk and now wants its row."""

    filename: str
    disk_name: str
    width: int
    height: int
    bytes: int
    sha256: str


class JobEnds:
    """These writes, and the times that go into them."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._db = database
        self._jobs = settings.jobs
        self._retention_us = int(settings.storage.retention_s * 1e6)

    def complete(
        self,
        connection: Connection,
        claim: Claim,
        output: NewOutput,
        timings: Mapping[str, float],
        ran_with: Mapping[str, object],
    ) -> None:
        """End the job with a picture; not while a cancel is asked for."""
        statements, job, times = self._db.statements, claim.job, self.read_times()
        inserted = statements.insert_output(
            connection,
            agent_id=job.agent_id,
            filename=output.filename,
            disk_name=output.disk_name,
            width=output.width,
            height=output.height,
            bytes=output.bytes,
            sha256=output.sha256,
            **times,
        )
        held = require_held(inserted, job.id, claim.fence)  # nothing is inserted where an earlier try has done it all
        row = statements.complete(
            connection,
            id=job.id,
            fence=claim.fence,
            output_id=held["id"],
            timings=json.dumps(timings),
            ran_with=json.dumps(ran_with),
            **times,
        )
        require_held(row, job.id, claim.fence)
        statements.release_pins(connection, job_id=job.id)

    def fail(
        self, connection: Connection, job_id: str, fence: int, error_code: str, error: str, retryable: bool
    ) -> None:
        """End the job with a reason; not while a cancel is asked for."""
        row = self._db.statements.fail(
            connection,
            id=job_id,
            fence=fence,
            error_code=error_code,
            error=error,
            retryable=int(retryable),
            **self.read_times(),
        )
        require_held(row, job_id, fence)
        self._db.statements.release_pins(connection, job_id=job_id)

    def cancel(self, connection: Connection, job_id: str, fence: int) -> None:
        """End the job as its agent asked; only once it has."""
        row = self._db.statements.cancel_running(connection, id=job_id, fence=fence, **self.read_times())
        if row is None:
            raise StaleClaim(f"{job_id} is not held under fence {fence}, or nobody asked for a cancel")
        self._db.statements.release_pins(connection, job_id=job_id)

    def requeue(self, connection: Connection, job_id: str, fence: int, attempts_undone: int) -> None:
        """Put the job back into the queue, its time there anew; not while a cancel is asked for."""
        row = self._db.statements.give_back(
            connection,
            id=job_id,
            fence=fence,
            attempts_undone=attempts_undone,
            boot_id=self._db.clock.boot_id,
            queue_until_boot_ms=self.queue_until_ms(),
        )
        require_held(row, job_id, fence)

    def let_go(self, connection: Connection, job_id: str, fence: int, attempts: int, error: str) -> ErrorCode | None:
        """Put a job whose attempt is lost back into the queue while attempts are left, else fail it with `error`.

        What it failed with; None where it is queued again.
        """
        if attempts < self._jobs.max_attempts:
            self.requeue(connection, job_id, fence, attempts_undone=0)
            return None
        self.fail(connection, job_id, fence, ErrorCode.WORKER_LOST, error, retryable=True)
        return ErrorCode.WORKER_LOST

    def read_times(self) -> Mapping[str, int]:
        """When a job that ends at this moment ended, and when it expires."""
        now_us = self._db.clock.wall_us()
        return {"now_us": now_us, "expires_at_us": now_us + self._retention_us}

    def queue_until_ms(self) -> int:
        """Until when, in boot time, a job may wait that enters the queue at this moment."""
        return self._db.clock.boot_ms() + int(self._jobs.queue_ttl_s * 1000)


def require_held(row: Row | None, job_id: str, fence: int) -> Row:
    """The row that a guarded write gave back. Raises StaleClaim where it gave none."""
    if row is None:
        raise StaleClaim(f"{job_id} is not held under fence {fence}")
    return row
