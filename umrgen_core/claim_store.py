"""Jobs as the workers see them: claimed, renewed, ended.

Every write names the fence of its claim; a row that does not come back raises StaleClaim and the
whole write is undone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from umrgen_core.config import Settings
from umrgen_core.database import Database
from umrgen_core.disk import DiskGuard
from umrgen_core.job_ends import JobEnds, NewOutput, require_held
from umrgen_core.jobs import Claim, ErrorCode, Job, JobState, Pin
from umrgen_core.rows import to_job, to_pin
from umrgen_core.run_times import run_time_key_of, total_key
from umrgen_core.sqlite import Connection, Row

MAX_DEVICE_LOSSES = 2
"""A job whose runs took the device down so often is not run again."""


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
        self._ends = JobEnds(database, settings)
        self._disk = DiskGuard(settings.storage)

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
        fresh_until_ms = self._ends.queue_until_ms()
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
            return require_held(row, claim.job_id, claim.fence)["cancel_requested_at_us"] is not None

        return await self._db.writer.run(work)

    async def put_progress(self, claim: Claim, step: int) -> bool:
        """Record `step` steps done; whether the agent has asked for a cancel. Raises StaleClaim."""

        def work(connection: Connection) -> bool:
            row = self._db.statements.put_progress(connection, id=claim.job_id, fence=claim.fence, step=step)
            return require_held(row, claim.job_id, claim.fence)["cancel_requested_at_us"] is not None

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
            self._ends.complete(connection, claim, output, timings, ran_with or {})
            self._put_run_time(connection, claim.job, run_s)

        await self._db.writer.run(work)
        self._db.meter.job_completed(claim.job.model, timings, ran_with or {})

    def _put_run_time(self, connection: Connection, job: Job, run_s: float) -> None:
        for key in (run_time_key_of(job), total_key(job.model)):
            self._db.statements.put_run_time(connection, **key, run_s=run_s)

    async def find_completed(self, claim: Claim) -> str | None:
        """Name on disk of the output that the job ended with, or None. Raises Unavailable."""
        row = await self._db.reader.one(self._db.statements.get_job.sql, id=claim.job_id)
        return None if row is None else row["output_disk_name"]

    async def fail(self, claim: Claim, error_code: str, error: str, retryable: bool) -> None:
        """End the job with a reason. Raises StaleClaim, also when a cancel was asked for."""
        job_id, fence = claim.job_id, claim.fence
        await self._db.writer.run(
            lambda connection: self._ends.fail(connection, job_id, fence, error_code, error, retryable)
        )
        self._db.meter.job_ended(claim.job.model, JobState.FAILED, error_code)

    async def acknowledge_cancel(self, claim: Claim) -> None:
        """End the job as its agent asked. Raises StaleClaim when no cancel was asked for."""
        await self._db.writer.run(lambda connection: self._ends.cancel(connection, claim.job_id, claim.fence))
        self._db.meter.job_ended(claim.job.model, JobState.CANCELLED, "")

    async def give_back(self, claim: Claim) -> None:
        """Put the job back into the queue with the attempt undone. Raises StaleClaim."""
        await self._db.writer.run(
            lambda connection: self._ends.requeue(connection, claim.job_id, claim.fence, attempts_undone=1)
        )
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
        error = f"{reason} in each of {claim.job.attempts} attempts. Tell the owner of the service."
        return self._ends.let_go(connection, claim.job_id, claim.fence, claim.job.attempts, error)

    async def lose_device(self, claim: Claim) -> None:
        """Let go of a job whose run took the device down; one that does it again fails for good.

        Raises StaleClaim, also when a cancel was asked for.
        """

        def work(connection: Connection) -> ErrorCode | None:
            counted = self._db.statements.count_device_loss(connection, id=claim.job_id, fence=claim.fence)
            losses = require_held(counted, claim.job_id, claim.fence)["device_losses"]
            if losses < MAX_DEVICE_LOSSES:
                return self._release(connection, claim, "The device failed")
            error = (
                f"The device failed in {losses} runs of this job, so it is not run again."
                " Change the request, or tell the owner of the service."
            )
            self._ends.fail(connection, claim.job_id, claim.fence, ErrorCode.MODEL_ERROR, error, retryable=False)
            return ErrorCode.MODEL_ERROR

        self._note_release(claim, await self._db.writer.run(work))

    def _lease_until_ms(self) -> int:
        return self._db.clock.boot_ms() + int(self._jobs.lease_s * 1000)


def _choose_fairest(heads: Iterable[Row | None]) -> Row | None:
    """Of the next jobs of several models, that of the agent served least recently, then the oldest."""
    return min((head for head in heads if head), key=lambda head: (head["last_served"], head["seq"]), default=None)
