"""Jobs as their agents see them: accepted, looked at."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from umrgen_core.admission import Admission, PinnedImage
from umrgen_core.agents import Agent
from umrgen_core.config import Settings
from umrgen_core.database import Database
from umrgen_core.errors import IdempotencyConflict
from umrgen_core.jobs import Job, JobState
from umrgen_core.reader import fetch_one
from umrgen_core.requests import AcceptedRequest
from umrgen_core.rows import to_job
from umrgen_core.run_times import run_time_key_of
from umrgen_core.sqlite import Connection, Row

MOST_POSITION = 100
"""Positions are counted no further: O(backlog) otherwise."""

NEWEST_SEQ = 2**63 - 1

REPLAY_RETENTION_US = 24 * 3600 * 1_000_000
"""How long the answer to an Idempotency-Key is kept."""


@dataclass(frozen=True, slots=True)
class QueuePlace:
    """Where a queued job stands. `eta_s` is None when no such run has been measured, or the queue is paused."""

    position: int
    capped: bool
    eta_s: float | None


@dataclass(frozen=True, slots=True)
class Standing:
    """A job, the `place` of a queued one, and the rest of a running one in seconds where such runs were measured."""

    job: Job
    place: QueuePlace | None = None
    rest_s: float | None = None


@dataclass(frozen=True, slots=True)
class Submission:
    """A request that names itself: its Idempotency-Key, what it asks, and how it is answered."""

    key: str
    body_sha256: str
    render: Callable[[Job, int], dict[str, object]]


@dataclass(frozen=True, slots=True)
class Replay:
    """The answer to a submission; `first` is False when it was given before."""

    answer: dict[str, object]
    first: bool


class JobStore:
    """Rows of `jobs`, from the web tier's side."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._db = database
        self._queue_ttl_ms = int(settings.jobs.queue_ttl_s * 1000)
        self._admission = Admission(database, settings)

    async def enqueue(
        self, agent: Agent, job_id: str, request: AcceptedRequest, request_id: str, traceparent: str | None = None
    ) -> tuple[Job, int]:
        """Put a job on disk, its images pinned; the job and its queue position.

        Raises Unavailable while the queue drains, ReferenceNotFound, ConcurrentLimit, QueueFull or QuotaExceeded;
        then nothing is written.
        """
        return await self._db.writer.run(
            lambda connection: self._enqueue(connection, agent, job_id, request, request_id, traceparent)
        )

    def _enqueue(
        self,
        connection: Connection,
        agent: Agent,
        job_id: str,
        request: AcceptedRequest,
        request_id: str,
        traceparent: str | None,
    ) -> tuple[Job, int]:
        room = self._admission.read_room(connection, agent)
        images = self._admission.resolve_images(connection, agent, request.reference_names)
        self._admission.check_limits(connection, agent, room)
        job = self._insert(connection, agent, job_id, request, request_id, traceparent)
        self._pin(connection, job, images)
        counted: int = self._db.statements.queue_position(connection, **_position_arguments(job))[0]
        return job, min(counted, MOST_POSITION)

    async def enqueue_once(
        self,
        agent: Agent,
        job_id: str,
        request: AcceptedRequest,
        request_id: str,
        submission: Submission,
        traceparent: str | None = None,
    ) -> Replay:
        """Like `enqueue`, unless this submission was accepted before: then its first answer.

        Raises IdempotencyConflict when the key came with another body, and what `enqueue` raises.
        """

        def work(connection: Connection) -> Replay:
            now_us = self._db.clock.wall_us()
            row = self._db.statements.find_replay(
                connection, agent_id=agent.id, idempotency_key=submission.key, now_us=now_us
            )
            if row is not None:
                return _replay(row, submission)
            job, position = self._enqueue(connection, agent, job_id, request, request_id, traceparent)
            answer = submission.render(job, position)
            self._db.statements.put_replay(
                connection,
                agent_id=agent.id,
                idempotency_key=submission.key,
                body_sha256=submission.body_sha256,
                answer=json.dumps(answer),
                now_us=now_us,
                expires_at_us=now_us + REPLAY_RETENTION_US,
            )
            return Replay(answer, first=True)

        return await self._db.writer.run(work)

    async def find_replay(self, agent: Agent, submission: Submission) -> Replay | None:
        """The first answer to this submission, or None. Raises IdempotencyConflict."""
        row = await self._db.reader.one(
            self._db.statements.find_replay.sql,
            agent_id=agent.id,
            idempotency_key=submission.key,
            now_us=self._db.clock.wall_us(),
        )
        return None if row is None else _replay(row, submission)

    async def find(self, agent: Agent, job_id: str) -> Job | None:
        """The agent's live job, or None."""
        return await self._db.reader.run(lambda connection: self._read(connection, agent, job_id))

    async def describe(self, job: Job) -> Standing:
        """What there is to say of a job's place or its run; of an ended one nothing, without asking the store."""
        if job.state.ended:
            return Standing(job)
        return await self._db.reader.run(lambda connection: self._describe(connection, job))

    async def find_standing(self, agent: Agent, job_id: str) -> Standing | None:
        """The agent's live job, described, or None."""
        return await self._db.reader.run(lambda connection: self.read_standing(connection, agent, job_id))

    def read_standing(self, connection: Connection, agent: Agent, job_id: str) -> Standing | None:
        """Like find_standing, for who is in the reader's thread already."""
        job = self._read(connection, agent, job_id)
        return None if job is None else self._describe(connection, job)

    def _read(self, connection: Connection, agent: Agent, job_id: str) -> Job | None:
        row = fetch_one(connection, self._db.statements.get_job.sql, id=job_id)
        if row is None or row["agent_id"] != agent.id:
            return None
        if row["expires_at_us"] is not None and row["expires_at_us"] <= self._db.clock.wall_us():
            return None
        return to_job(row)

    def _describe(self, connection: Connection, job: Job) -> Standing:
        if job.state is JobState.QUEUED:
            return Standing(job, place=self._locate(connection, job))
        if job.state is JobState.RUNNING:
            return Standing(job, rest_s=self._estimate_rest_s(connection, job))
        return Standing(job)

    def _locate(self, connection: Connection, job: Job) -> QueuePlace:
        row = fetch_one(connection, self._db.statements.queue_position.sql, **_position_arguments(job))
        counted: int = row["position"] if row is not None else 1
        paused = row is not None and row["paused_at_us"] is not None
        run_s = None if paused else self._find_run_time(connection, job)
        position = min(counted, MOST_POSITION)
        return QueuePlace(position, counted > MOST_POSITION, None if run_s is None else run_s * position)

    def _estimate_rest_s(self, connection: Connection, job: Job) -> float | None:
        run_s = self._find_run_time(connection, job)
        if run_s is None or job.started_at_us is None:
            return None
        elapsed_s = (self._db.clock.wall_us() - job.started_at_us) / 1e6
        return max(run_s - max(elapsed_s, 0.0), 0.0)

    def _find_run_time(self, connection: Connection, job: Job) -> float | None:
        row = fetch_one(connection, self._db.statements.find_run_time.sql, **run_time_key_of(job))
        return None if row is None else row["mean_s"]

    async def list_page(self, agent: Agent, state: JobState | None, most: int, cursor: str | None) -> list[Job] | None:
        """Own jobs, newest first, behind the one that `cursor` names; None when that is no own job."""
        before = NEWEST_SEQ
        if cursor is not None:
            job = await self.find(agent, cursor)
            if job is None:
                return None
            before = job.seq
        page = {"agent_id": agent.id, "before": before, "now_us": self._db.clock.wall_us(), "most": most}
        statements, reader = self._db.statements, self._db.reader
        if state is None:
            rows = await reader.all(statements.list_jobs.sql, **page)
        else:
            rows = await reader.all(statements.list_jobs_in_state.sql, state=state.value, **page)
        return [to_job(row) for row in rows]

    async def list_active(self, agent: Agent) -> list[Job]:
        """Own jobs queued or running, oldest first; at most a hundred."""
        states = (JobState.RUNNING, JobState.QUEUED)
        found = [await self.list_page(agent, state, MOST_POSITION, None) or [] for state in states]
        return sorted((job for jobs in found for job in jobs), key=lambda job: job.seq)[:MOST_POSITION]

    def _insert(
        self,
        connection: Connection,
        agent: Agent,
        job_id: str,
        request: AcceptedRequest,
        request_id: str,
        traceparent: str | None,
    ) -> Job:
        clock, now_us = self._db.clock, self._db.clock.wall_us()
        asked: dict[str, Any] = {
            "id": job_id,
            "agent_id": agent.id,
            "model": request.model,
            "prompt": request.prompt,
            "negative": request.negative,
            "width": request.width,
            "height": request.height,
            "steps": request.steps,
            "seed": request.seed,
            "callback_url": request.callback_url,
            "request_id": request_id,
            "traceparent": traceparent,
        }
        row = self._db.statements.insert_job(
            connection,
            **asked,
            reference_names=json.dumps(request.reference_names),
            loras=json.dumps([choice.model_dump() for choice in request.loras]),
            ignored=json.dumps(request.ignored),
            now_us=now_us,
            boot_id=clock.boot_id,
            queue_until_boot_ms=clock.boot_ms() + self._queue_ttl_ms,
        )
        return Job(
            **asked,
            seq=row["seq"],
            state=JobState.QUEUED,
            reference_names=tuple(request.reference_names),
            loras=tuple((choice.name, choice.strength) for choice in request.loras),
            ignored=tuple(request.ignored),
            created_at_us=now_us,
        )

    def _pin(self, connection: Connection, job: Job, images: list[PinnedImage]) -> None:
        for position, image in enumerate(images):
            self._db.statements.pin_image(
                connection,
                job_id=job.id,
                position=position,
                reference_id=image.reference_id,
                output_id=image.output_id,
            )


def _replay(row: Row, submission: Submission) -> Replay:
    if row["body_sha256"] != submission.body_sha256:
        raise IdempotencyConflict(
            "This Idempotency-Key was used for another body in the last 24 hours. Use a new key for a new request."
        )
    return Replay(json.loads(row["answer"]), first=False)


def _position_arguments(job: Job) -> dict[str, Any]:
    return {"model": job.model, "agent_id": job.agent_id, "seq": job.seq, "most": MOST_POSITION + 1}
