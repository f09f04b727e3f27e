"""Jobs as the workers see them: claimed, renewed, ended, recovered.

Every write names the fence of its claim; a row that does not come back raises StaleClaim and the
whole write is undone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from umrgen_core.config import Settings
from umrgen_core.database import Database
from umrgen_core.disk import DiskGuard
from umrgen_core.errors import StaleClaim
from umrgen_core.jobs import Claim, ErrorCode, Job, JobState, Pin
from umrgen_core.logs import get_logger
from umrgen_core.rows import to_job, to_pin
from umrgen_core.run_times import run_time_key_of, total_key
from umrgen_core.sqlite import Connection, Row

LOG = get_logger("recovery")
MAX_DEVICE_LOSSES = 2
"""A job whose runs took the device down so often is not run again."""


@dataclass(frozen=True, slots=True)
class NewOutput:
    """A picture that has been published on disk and now wants its row."""

    filename: str
    disk_name: str
    width: int
    height: int
    bytes: int
    sha256: str


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


@dataclass(frozen=True, slots=True)
class Waiting:
    """A queued job that nobody holds yet, with the images it names."""

    job: Job
    pins: tuple[Pin, ...]


class ClaimStore:
    """Rows of `jobs`, from the workers' side."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._db = database
        self._jobs = settings.jobs
        self._disk = DiskGuard(settings.storage)
        self._retention_us = int(settings.storage.retention_s * 1e6)

    async def claim_next(self, model: str, worker_id: str) -> Claim | None:
        """The next job of `model` in fair order, now running under a new fence; None when none waits."""
        return await self.claim_from((model,), worker_id)

    async def claim_from(self, models: Sequence[str], worker_id: str, *, fresh: bool = False) -> Claim | None:
        """The next job of any of `models`, in fair order over all of them; None when none waits.

        With `fresh` also None when that job has attempts behind it, since such a job runs alone.
        """
        return next(iter(await self.claim_several(models, worker_id, fresh=fresh)), None)

    async def claim_several(
        self,
        models: Sequence[str],
        worker_id: str,
        *,
        fresh: bool = False,
        suits: Callable[[Job, Sequence[Claim]], bool] | None = None,
        expected: bool = False,
    ) -> Sequence[Claim]:
        """What `claim_from` would claim, and with it the jobs that come next for as long as they suit.

        `suits(job, claims)` is asked in the writer's thread whether a job goes with what is claimed already. The
        first that does not ends the round, as does one with attempts behind it: nobody is overtaken. Where a job
        is `expected` nobody looks before the write lock is taken. Raises Unavailable while the disk is nearly full.
        """
        if not expected and await self._find_head(models) is None:
            return ()  # an idle worker takes no write lock

        def work(connection: Connection) -> Sequence[Claim]:
            claims: list[Claim] = []
            while (head := self._read_head(connection, models)) is not None:
                if head["attempts"] and (fresh or claims):
                    break
                if claims and not (suits and suits(self._read_job(connection, head), claims)):
                    break
                self._disk.require_room()
                claims.append(self._claim(connection, head["seq"], worker_id))
                if suits is None:
                    break
            return claims

        claims = await self._db.writer.run(work)
        for claim in claims:
            self._db.meter.job_claimed(claim.job.model)
        return claims

    async def find_waiting(self, models: Sequence[str]) -> Waiting | None:
        """The job that `claim_from` with `fresh` would most likely claim next. Nothing is changed."""
        head = await self._find_head(models)
        if head is None or head["attempts"]:
            return None
        row = await self._db.reader.one(self._db.statements.get_job.sql, id=head["id"])
        if row is None:
            return None
        pins = await self._db.reader.all(self._db.statements.list_pins.sql, job_id=head["id"])
        return Waiting(to_job(row), tuple(to_pin(pin) for pin in pins))

    async def list_waiting_s(self) -> Mapping[str, float]:
        """Each model that jobs wait for, with the seconds since the first of them entered the queue.

        In boot time: a job that came back to the queue counts from there.
        """
        rows = await self._db.reader.all(self._db.statements.list_waiting_models.sql)
        fresh_until_ms = self._queue_until_ms()
        return {row["model"]: (fresh_until_ms - row["queue_until_boot_ms"]) / 1000 for row in rows}

    async def _find_head(self, models: Sequence[str]) -> Row | None:
        sql = self._db.statements.find_next.sql
        return _choose_fairest([await self._db.reader.one(sql, model=model) for model in models])

    def _read_head(self, connection: Connection, models: Sequence[str]) -> Row | None:
        return _choose_fairest(self._db.statements.find_next(connection, model=model) for model in models)

    def _read_job(self, connection: Connection, head: Row) -> Job:
        return to_job(self._db.statements.get_job(connection, id=head["id"]))

    def _claim(self, connection: Connection, seq: int, worker_id: str) -> Claim:
        statements, clock = self._db.statements, self._db.clock
        row = statements.claim(
            connection,
            seq=seq,
            worker_id=worker_id,
            now_us=clock.wall_us(),
            boot_id=clock.boot_id,
            lease_until_boot_ms=self._lease_until_ms(),
        )
        statements.mark_served(connection, agent_id=row["agent_id"])
        claimed = statements.get_job(connection, id=row["id"])
        pins = tuple(to_pin(pin) for pin in statements.list_pins(connection, job_id=row["id"]))
        return Claim(to_job(claimed), pins, claimed["agent_name"])

    async def heartbeat(self, claim: Claim) -> bool:
        """Renew the lease; whether the agent has asked for a cancel. Raises StaleClaim."""

        def work(connection: Connection) -> bool:
            row = self._db.statements.heartbeat(
                connection,
                id=claim.job_id,
                fence=claim.fence,
                boot_id=self._db.clock.boot_id,
                lease_until_boot_ms=self._lease_until_ms(),
            )
            return _held(row, claim)["cancel_requested_at_us"] is not None

        return await self._db.writer.run(work)

    async def put_progress(self, claim: Claim, step: int) -> bool:
        """Record `step` steps done; whether the agent has asked for a cancel. Raises StaleClaim."""

        def work(connection: Connection) -> bool:
            row = self._db.statements.put_progress(connection, id=claim.job_id, fence=claim.fence, step=step)
            return _held(row, claim)["cancel_requested_at_us"] is not None

        return await self._db.writer.run(work)

    async def complete(
        self,
        claim: Claim,
        output: NewOutput,
        timings: Mapping[str, float],
        run_s: float,
        ran_with: Mapping[str, object] | None = None,
    ) -> None:
        """End the job with a picture. Raises StaleClaim, also when a cancel was asked for.

        `timings` are seconds of its stages, `run_s` of the whole run; `ran_with` is what was in use.
        """

        def work(connection: Connection) -> None:
            self._complete(connection, claim, output, timings, ran_with or {})
            self._put_run_time(connection, claim.job, run_s)

        await self._db.writer.run(work)
        self._db.meter.job_completed(claim.job.model, timings, ran_with or {})

    def _complete(
        self,
        connection: Connection,
        claim: Claim,
        output: NewOutput,
        timings: Mapping[str, float],
        ran_with: Mapping[str, object],
    ) -> None:
        statements, job = self._db.statements, claim.job
        now_us = self._db.clock.wall_us()
        expires_at_us = now_us + self._retention_us
        inserted = statements.insert_output(
            connection,
            agent_id=job.agent_id,
            filename=output.filename,
            disk_name=output.disk_name,
            width=output.width,
            height=output.height,
            bytes=output.bytes,
            sha256=output.sha256,
            now_us=now_us,
            expires_at_us=expires_at_us,
        )
        output_id = _held(inserted, claim)["id"]  # nothing is inserted where an earlier try has done it all
        row = statements.complete(
            connection,
            id=job.id,
            fence=claim.fence,
            output_id=output_id,
            timings=json.dumps(timings),
            ran_with=json.dumps(ran_with),
            now_us=now_us,
            expires_at_us=expires_at_us,
        )
        _held(row, claim)
        statements.release_pins(connection, job_id=job.id)

    def _put_run_time(self, connection: Connection, job: Job, run_s: float) -> None:
        for key in (run_time_key_of(job), total_key(job.model)):
            self._db.statements.put_run_time(connection, **key, run_s=run_s)

    async def find_completed(self, claim: Claim) -> str | None:
        """Name on disk of the output that the job ended with, or None. Raises Unavailable."""
        row = await self._db.reader.one(self._db.statements.get_job.sql, id=claim.job_id)
        return None if row is None else row["output_disk_name"]

    async def fail(self, claim: Claim, error_code: str, error: str, retryable: bool) -> None:
        """End the job with a reason. Raises StaleClaim, also when a cancel was asked for."""

        def work(connection: Connection) -> None:
            self._fail(connection, claim.job_id, claim.fence, error_code, error, retryable)

        await self._db.writer.run(work)
        self._db.meter.job_ended(claim.job.model, JobState.FAILED, error_code)

    def _fail(
        self, connection: Connection, job_id: str, fence: int, error_code: str, error: str, retryable: bool
    ) -> None:
        now_us = self._db.clock.wall_us()
        row = self._db.statements.fail(
            connection,
            id=job_id,
            fence=fence,
            error_code=error_code,
            error=error,
            retryable=int(retryable),
            now_us=now_us,
            expires_at_us=now_us + self._retention_us,
        )
        if row is None:
            raise StaleClaim(f"{job_id} is not held under fence {fence}")
        self._db.statements.release_pins(connection, job_id=job_id)

    async def acknowledge_cancel(self, claim: Claim) -> None:
        """End the job as its agent asked. Raises StaleClaim when no cancel was asked for."""

        def work(connection: Connection) -> None:
            self._cancel(connection, claim.job_id, claim.fence)

        await self._db.writer.run(work)
        self._db.meter.job_ended(claim.job.model, JobState.CANCELLED, "")

    def _cancel(self, connection: Connection, job_id: str, fence: int) -> None:
        now_us = self._db.clock.wall_us()
        row = self._db.statements.cancel_running(
            connection, id=job_id, fence=fence, now_us=now_us, expires_at_us=now_us + self._retention_us
        )
        if row is None:
            raise StaleClaim(f"{job_id} is not held under fence {fence}, or nobody asked for a cancel")
        self._db.statements.release_pins(connection, job_id=job_id)

    async def give_back(self, claim: Claim) -> None:
        """Put the job back into the queue with the attempt undone. Raises StaleClaim."""

        def work(connection: Connection) -> None:
            self._requeue(connection, claim.job_id, claim.fence, attempts_undone=1)

        await self._db.writer.run(work)
        self._db.meter.job_requeued(claim.job.model, "given_back")

    async def release(self, claim: Claim, reason: str) -> None:
        """Let go of a job that could not be finished: requeued while attempts are left, else failed.

        `reason` begins the sentence that its agent is told. Raises StaleClaim, also when a cancel was asked for.
        """
        failed_with = await self._db.writer.run(lambda connection: self._release(connection, claim, reason))
        self._note_release(claim, failed_with)

    def _note_release(self, claim: Claim, failed_with: ErrorCode | None) -> None:
        if failed_with is None:
            self._db.meter.job_requeued(claim.job.model, "released")
        else:
            self._db.meter.job_ended(claim.job.model, JobState.FAILED, failed_with)

    def _release(self, connection: Connection, claim: Claim, reason: str) -> ErrorCode | None:
        """What the job failed with; None where it is queued again."""
        if claim.job.attempts < self._jobs.max_attempts:
            self._requeue(connection, claim.job_id, claim.fence, attempts_undone=0)
            return None
        error = f"{reason} in each of {claim.job.attempts} attempts. Tell the owner of the service."
        self._fail(connection, claim.job_id, claim.fence, ErrorCode.WORKER_LOST, error, retryable=True)
        return ErrorCode.WORKER_LOST

    async def lose_device(self, claim: Claim) -> None:
        """Let go of a job whose run took the device down; one that does it again fails for good.

        Raises StaleClaim, also when a cancel was asked for.
        """

        def work(connection: Connection) -> ErrorCode | None:
            counted = self._db.statements.count_device_loss(connection, id=claim.job_id, fence=claim.fence)
            losses = _held(counted, claim)["device_losses"]
            if losses < MAX_DEVICE_LOSSES:
                return self._release(connection, claim, "The device failed")
            error = (
                f"The device failed in {losses} runs of this job, so it is not run again."
                " Change the request, or tell the owner of the service."
            )
            self._fail(connection, claim.job_id, claim.fence, ErrorCode.MODEL_ERROR, error, retryable=False)
            return ErrorCode.MODEL_ERROR

        self._note_release(claim, await self._db.writer.run(work))

    def _requeue(self, connection: Connection, job_id: str, fence: int, attempts_undone: int) -> None:
        row = self._db.statements.give_back(
            connection,
            id=job_id,
            fence=fence,
            attempts_undone=attempts_undone,
            boot_id=self._db.clock.boot_id,
            queue_until_boot_ms=self._queue_until_ms(),
        )
        if row is None:
            raise StaleClaim(f"{job_id} is not held under fence {fence}")

    async def recover_lost(self) -> Sequence[Recovered]:
        """End or requeue what lost its worker, and end what waited too long. Idle, it only reads."""
        moment = {"boot_id": self._db.clock.boot_id, "now_boot_ms": self._db.clock.boot_ms()}
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
        statements, clock = self._db.statements, self._db.clock
        moment = {"boot_id": clock.boot_id, "now_boot_ms": clock.boot_ms()}
        lost = list(statements.list_lost(connection, **moment))
        overdue = list(statements.list_overdue(connection, **moment))
        recovered = [self._recover_one(connection, row) for row in lost]
        return recovered + [self._end_overdue(connection, row) for row in overdue]

    def _recover_one(self, connection: Connection, row: Row) -> Recovered:
        job_id, fence = row["id"], row["fence"]
        if row["cancel_requested_at_us"] is not None:
            self._cancel(connection, job_id, fence)
            return _tell(row, JobState.CANCELLED, "cancel requested")
        if row["attempts"] < self._jobs.max_attempts:
            self._requeue(connection, job_id, fence, attempts_undone=0)
            return _tell(row, JobState.QUEUED, ErrorCode.WORKER_LOST)
        error = (
            f"The worker was lost in each of {row['attempts']} attempts."
            " Submit the job again; if it fails again, tell the owner of the service."
        )
        self._fail(connection, job_id, fence, ErrorCode.WORKER_LOST, error, retryable=True)
        return _tell(row, JobState.FAILED, ErrorCode.WORKER_LOST)

    def _end_overdue(self, connection: Connection, row: Row) -> Recovered:
        clock = self._db.clock
        self._db.statements.fail_overdue(
            connection,
            id=row["id"],
            boot_id=clock.boot_id,
            now_boot_ms=clock.boot_ms(),
            error_code=ErrorCode.TIMEOUT,
            error=f"No worker took the job within {self._jobs.queue_ttl_s:g} s. Submit it again later.",
            now_us=clock.wall_us(),
            expires_at_us=clock.wall_us() + self._retention_us,
        )
        self._db.statements.release_pins(connection, job_id=row["id"])
        return _tell(row, JobState.FAILED, ErrorCode.TIMEOUT)

    async def adopt_queue(self) -> None:
        """Once at start: after a reboot the time of queued jobs starts anew, unknown time having passed."""
        boot_id = self._db.clock.boot_id

        def work(connection: Connection) -> None:
            self._db.statements.restart_queue_time(
                connection, boot_id=boot_id, queue_until_boot_ms=self._queue_until_ms()
            )

        if await self._db.reader.one(self._db.statements.find_foreign_boot.sql, boot_id=boot_id):
            await self._db.writer.run(work)

    def _lease_until_ms(self) -> int:
        return self._db.clock.boot_ms() + int(self._jobs.lease_s * 1000)

    def _queue_until_ms(self) -> int:
        return self._db.clock.boot_ms() + int(self._jobs.queue_ttl_s * 1000)


def _tell(row: Row, state: JobState, reason: str) -> Recovered:
    return Recovered(row["id"], row["agent"], row["fence"], row["request_id"], row["model"], state, reason)


def _choose_fairest(heads: Iterable[Row | None]) -> Row | None:
    """Of the next jobs of several models, that of the agent served least recently, then the oldest."""
    return min((head for head in heads if head), key=lambda head: (head["last_served"], head["seq"]), default=None)


def _held(row: Row | None, claim: Claim) -> Row:
    if row is None:
        raise StaleClaim(f"{claim.job_id} is not held under fence {claim.fence}")
    return row
