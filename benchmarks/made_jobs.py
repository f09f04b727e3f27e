"""Jobs put into a store, and ended there, without a web tier or a daemon."""

from __future__ import annotations

from dataclasses import dataclass

from umrgen_core.agent_store import AgentStore
from umrgen_core.agents import Agent
from umrgen_core.claim_store import ClaimStore
from umrgen_core.config import Settings
from umrgen_core.database import Database
from umrgen_core.files import FileStore, Shelf
from umrgen_core.job_ends import NewOutput
from umrgen_core.job_store import JobStore
from umrgen_core.jobs import Claim, Job
from umrgen_core.names import new_job_id, new_output_filename, output_disk_name
from umrgen_core.requests import AcceptedRequest

STEPS = 4


@dataclass(frozen=True, slots=True)
class MadePicture:
    """A completed job."""

    job_id: str
    path: str
    """Of its picture, with the session that may see it."""


class JobMaker:
    """Puts jobs of one agent into the store."""

    def __init__(self, settings: Settings, database: Database, agent: Agent) -> None:
        self.jobs = JobStore(database, settings)
        self.claims = ClaimStore(database, settings)
        self._files = FileStore(settings.storage.data_dir)
        self._model = settings.default_model
        self._agent = agent

    async def queue(self, side_px: int = 64) -> str:
        """A new job; its id."""
        request = AcceptedRequest(self._model, "a star", "", side_px, side_px, STEPS, 1, (), ())
        job_id = new_job_id()
        await self.jobs.enqueue(self._agent, job_id, request, "benchmark")
        return job_id

    async def claim(self) -> Claim:
        """The job that comes next, running."""
        claim = await self.claims.claim_next(self._model, "benchmark")
        if claim is None:
            raise SystemExit("no job waits")
        return claim

    async def find(self, job_id: str) -> Job:
        """How a job stands."""
        job = await self.jobs.find(self._agent, job_id)
        if job is None:
            raise SystemExit("the job is gone")
        return job

    async def complete(self, claim: Claim, content: bytes) -> MadePicture:
        """End a job with a picture of these bytes."""
        self._files.prepare()
        name, filename = output_disk_name(claim.job_id, claim.fence), new_output_filename()
        kept = self._files.publish_bytes(Shelf.OUTPUTS, name, content)
        output = NewOutput(filename, name, 64, 64, kept.bytes, kept.sha256)
        await self.claims.complete(claim, output, {"total": 0.1}, 0.1)
        session = self._agent.session_id
        return MadePicture(claim.job_id, f"/outputs/{session}/{filename}?session_id={session}")


async def make_maker(settings: Settings, database: Database, key: str) -> JobMaker:
    """A maker for the agent of `key`."""
    agent = await AgentStore(database, settings.limits).find_by_key(key)
    if agent is None:
        raise SystemExit("the agent that was just made is not found")
    return JobMaker(settings, database, agent)
