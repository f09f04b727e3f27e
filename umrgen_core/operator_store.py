"""The owner's hand on the jobs of every agent: list, look, cancel, run again.

Nothing here asks for a key: whoever may open the store may do all of it. Whoever cancels or runs again tells the
processes afterwards (`Hints.send`); else they find out at their next poll.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from umrgen_core.agents import Agent, AgentLimits
from umrgen_core.cancellation import Cancellation
from umrgen_core.config import Settings
from umrgen_core.database import Database
from umrgen_core.errors import JobNotFound, OperatorError, ReferenceNotFound
from umrgen_core.files import FileStore, Shelf
from umrgen_core.job_store import NEWEST_SEQ, JobStore
from umrgen_core.jobs import Job, JobState
from umrgen_core.names import new_job_id
from umrgen_core.operator_records import JobPage, JobRecord, WebhookLine, to_line
from umrgen_core.requests import AcceptedRequest, LoraChoice
from umrgen_core.rows import to_job, to_pin
from umrgen_core.sqlite import Row

LOOKED_AT = 10_000
"""Jobs that a list without an index of its own looks at, the newest first: a web tier asks too, and must not stall."""
ALL = 2**62
ACTIVE = (JobState.QUEUED, JobState.RUNNING)
UNLIMITED = AgentLimits(*([2**62] * len(AgentLimits.__dataclass_fields__)))


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs are listed; None means any."""

    agent: str | None = None
    state: JobState | None = None
    model: str | None = None


class OperatorStore:
    """Jobs of every agent. Every method raises Unavailable when the store cannot be had."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._db = database
        self._jobs = JobStore(database, settings)
        self._cancellation = Cancellation(database, settings.storage.retention_s)
        self._files = FileStore(settings.storage.data_dir)
        self._served = settings.served_models

    async def list_jobs(
        self, wanted: JobFilter, most: int = 50, before: int | None = None, look: int = LOOKED_AT
    ) -> JobPage:
        """Jobs, newest first, behind `before` of an earlier page. Raises OperatorError for an unknown agent.

        By agent and by state the index finds them however old they are. A model of jobs that have ended is
        looked for among the newest `look` only.
        """
        indexed = wanted.state is not None and (wanted.model is None or wanted.state in ACTIVE)
        if wanted.state is None and wanted.model is None:
            look = most + 1
        agent_id = None if wanted.agent is None else await self._get_agent_id(wanted.agent)
        asked: dict[str, object] = {
            "before": before or NEWEST_SEQ,
            "state": None if wanted.state is None else wanted.state.value,
            "model": wanted.model,
            "most": most + 1,
        }
        rows = await (self._read_state(agent_id, asked) if indexed else self._read_newest(agent_id, asked, look))
        more = len(rows) > most
        looked_at = None if indexed or more or wanted.model is None or look == ALL else look
        return JobPage(tuple(map(to_line, rows[:most])), rows[most - 1]["seq"] if more else None, looked_at)

    async def _read_state(self, agent_id: int | None, asked: dict[str, object]) -> list[Row]:
        return await self._db.reader.all(self._db.statements.operator_jobs_in_state.sql, agent_id=agent_id, **asked)

    async def _read_newest(self, agent_id: int | None, asked: dict[str, object], look: int) -> list[Row]:
        statements, reader = self._db.statements, self._db.reader
        if agent_id is None:
            return await reader.all(statements.operator_jobs.sql, look=look, **asked)
        return await reader.all(statements.operator_jobs_of_agent.sql, agent_id=agent_id, look=look, **asked)

    async def _get_agent_id(self, name: str) -> int:
        row = await self._db.reader.one(self._db.statements.get_agent.sql, name=name)
        if row is None:
            raise OperatorError(f"there is no agent called {name!r}; 'umrgen-admin agents list' shows them")
        agent_id: int = row["id"]
        return agent_id

    async def show(self, job_id: str) -> JobRecord:
        """Everything about a job. Raises OperatorError where there is none."""
        row = await self._get_row(job_id)
        job, statements, reader = to_job(row), self._db.statements, self._db.reader
        agent = await self._get_agent(job)
        webhook = await reader.one(statements.operator_webhook.sql, job_id=job_id)
        pins = await reader.all(statements.list_pins.sql, job_id=job_id)
        events = await reader.all(statements.operator_events.sql, job_id=job_id)
        path = None if job.output is None else self._files.path(Shelf.OUTPUTS, job.output.disk_name).resolve()
        return JobRecord(
            job=job,
            agent=agent.name,
            device_losses=row["device_losses"],
            lease_left_s=self._find_lease_left_s(row),
            pins=tuple(map(to_pin, pins)),
            events=tuple((event["id"], event["kind"]) for event in events),
            webhook=None if webhook is None else WebhookLine(**dict(webhook)),
            output_path=path,
            output_exists=path is not None and await asyncio.to_thread(path.is_file),
        )

    def _find_lease_left_s(self, row: Row) -> float | None:
        if row["lease_boot_id"] != self._db.clock.boot_id:
            return None
        left_ms: int = row["lease_until_boot_ms"] - self._db.clock.boot_ms()
        return left_ms / 1000

    async def cancel(self, job_id: str) -> Job:
        """End a queued job, ask the worker of a running one to; the job as it now stands. An ended one is left.

        Raises OperatorError where there is none.
        """
        agent = await self._get_agent(to_job(await self._get_row(job_id)))
        try:
            return await self._cancellation.cancel(agent, job_id)
        except JobNotFound:
            raise _no_job(job_id) from None

    async def retry(self, job_id: str, *, force: bool = False) -> Job:
        """Submit the request of an ended job again, as a new job of the same agent; the new job.

        The agent's own limits do not hold, those of the service do. Raises OperatorError where it cannot be done,
        Unavailable while the queue drains or the disk is nearly full, QueueFull.
        """
        job = to_job(await self._get_row(job_id))
        self._check_retry(job, force=force)
        try:
            again, _ = await self._jobs.enqueue(
                await self._get_agent(job), new_job_id(), _to_request(job), f"retry.{job_id}"
            )
        except ReferenceNotFound as error:
            raise OperatorError(
                f"{job_id} named the picture {error.extra['filename']}, which is kept no more: it cannot be run again"
            ) from None
        return again

    def _check_retry(self, job: Job, *, force: bool) -> None:
        if not job.state.ended:
            raise OperatorError(f"{job.id} is {job.state}: it has not ended, so there is nothing to run again")
        if job.state is JobState.COMPLETED and not force:
            raise OperatorError(f"{job.id} is completed and has its picture; --force runs it again all the same")
        if job.model not in self._served:
            raise OperatorError(f"{job.id} asks for the model {job.model}, which is not in [infer] models any more")

    async def _get_row(self, job_id: str) -> Row:
        row = await self._db.reader.one(self._db.statements.get_job.sql, id=job_id)
        if row is None:
            raise _no_job(job_id)
        return row

    async def _get_agent(self, job: Job) -> Agent:
        """The agent of a job, as the owner acts for it: bound by no limits, since nobody's key is used."""
        (row,) = await self._db.reader.all(self._db.statements.operator_agent.sql, agent_id=job.agent_id)
        return Agent(row["id"], row["name"], row["session_id"], 0, frozenset(), UNLIMITED, frozenset())


def _no_job(job_id: str) -> OperatorError:
    return OperatorError(
        f"there is no job {job_id!r}; it may have expired. 'umrgen-admin jobs list' shows what there is"
    )


def _to_request(job: Job) -> AcceptedRequest:
    return AcceptedRequest(
        model=job.model,
        prompt=job.prompt,
        negative=job.negative,
        width=job.width,
        height=job.height,
        steps=job.steps,
        seed=job.seed,
        reference_names=job.reference_names,
        ignored=job.ignored,
        loras=tuple(LoraChoice(name=name, strength=strength) for name, strength in job.loras),
        callback_url=job.callback_url,
    )
