"""The bench of a random history: the real stores on a real database, the model of the contract, the checks."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.conftest import FakeClock, make_settings
from tests.faults.harness import read_rows
from umrgen_core.agent_store import AgentStore
from umrgen_core.cancellation import Cancellation
from umrgen_core.claim_store import ClaimStore
from umrgen_core.database import open_database
from umrgen_core.errors import UmrgenError
from umrgen_core.files import FileStore
from umrgen_core.job_store import JobStore
from umrgen_core.jobs import TRANSITIONS, Claim, JobState
from umrgen_core.recovery_store import RecoveryStore
from umrgen_core.reference_store import ReferenceStore
from umrgen_core.retention_store import RetentionStore

LIMIT, ATTEMPTS, LEASE_S, TTL_S, RETENTION_S = 3, 3, 30, 3600, 7200
RETENTION_US, HOUR_US = RETENTION_S * 1_000_000, 3_600_000_000
QUEUED, RUNNING, COMPLETED, FAILED, CANCELLED = JobState
JOBS = {"lease_s": LEASE_S, "max_attempts": ATTEMPTS, "queue_ttl_s": TTL_S}
FAST_DISK = Path("/dev/shm")
_TEMPLATES: list[Path] = []


@dataclass
class Expected:
    """What the contract says of one job. `lease` and `queue` are (boot id, until)."""

    number: int
    agent: int
    pins: tuple[str, ...]
    queue: tuple[str, int]
    state: JobState = QUEUED
    attempts: int = 0
    fence: int = 0
    cancel: bool = False
    lease: tuple[str, int] = ("", 0)
    expires: int | None = None
    output: str | None = None


def fresh_store() -> Path:
    """A folder with an empty store: made once by the real migration, then copied."""
    where = FAST_DISK if os.access(FAST_DISK, os.W_OK) else None
    if not _TEMPLATES:
        _TEMPLATES.append(Path(tempfile.mkdtemp(prefix="history-", dir=where)))
        asyncio.run(_make_store(_TEMPLATES[0] / "data"))
    folder = Path(tempfile.mkdtemp(prefix="history-", dir=where))
    shutil.copytree(_TEMPLATES[0] / "data", folder / "data")
    return folder


def forget_template() -> None:
    while _TEMPLATES:
        shutil.rmtree(_TEMPLATES.pop())


async def _make_store(data_dir: Path) -> None:
    async with open_database(make_settings(data_dir), FakeClock()):
        pass


class Bench(RuleBasedStateMachine):
    """Two processes over one store, two agents, any number of workers; the rules are in history_rules."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = fresh_store()
        self.data_dir = self.folder / "data"
        storage = {"data_dir": str(self.data_dir), "retention_s": RETENTION_S, "reference_retention_s": RETENTION_S}
        self.settings = make_settings(self.data_dir, jobs=JOBS, storage=storage)
        self.clock = FakeClock()
        self.files = FileStore(self.data_dir)
        self.files.prepare()
        self.jobs: dict[str, Expected] = {}
        self.pictures: dict[str, tuple[int, int]] = {}
        self.names: list[str] = []
        self.replays: dict[tuple[int, str], tuple[int, int, object]] = {}
        self.claims: list[Claim] = []
        self.served = [0, 0]
        self.count = 0
        self.told_cancelled: set[str] = set()
        self.seen: dict[str, tuple[JobState, int]] = {}
        self.exits = AsyncExitStack()
        self.loop.run_until_complete(self.open())
        self.agents = [self.loop.run_until_complete(self._make_agent(number)) for number in range(2)]

    async def open(self) -> None:
        web, worker = [await self.exits.enter_async_context(open_database(self.settings, self.clock)) for _ in "ab"]
        self.web_side, self.job_store = web, JobStore(web, self.settings)
        self.cancellation = Cancellation(web, RETENTION_S)
        self.retention, self.references = RetentionStore(web), ReferenceStore(web, RETENTION_S)
        self.claim_store = ClaimStore(worker, self.settings)
        self.recovery = RecoveryStore(worker, self.settings)
        await self.recovery.adopt_queue()

    async def _make_agent(self, number: int) -> Any:
        store = AgentStore(self.web_side, self.settings.limits)
        await store.create_agent(f"agent{number}", f"sid_ext_{number}", f"key{number}")
        agent = await store.find_by_key(f"key{number}")
        return replace(agent, limits=replace(agent.limits, concurrent_jobs=LIMIT))

    def teardown(self) -> None:
        self.loop.run_until_complete(self.exits.aclose())
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
        shutil.rmtree(self.folder)

    def call(self, work: Coroutine[Any, Any, Any]) -> tuple[Any, type[Exception] | None]:
        try:
            return self.loop.run_until_complete(work), None
        except UmrgenError as error:
            return None, type(error)

    def live(self) -> list[Expected]:
        return [job for job in self.jobs.values() if not job.state.ended]

    def pinned(self) -> set[str | None]:
        return {name for job in self.live() for name in job.pins}

    def is_live(self, name: str, agent: int) -> bool:
        owner, expires = self.pictures.get(name, (-1, 0))
        return owner == agent and expires > self.clock.wall

    def holds(self, claim: Claim) -> bool:
        job = self.jobs.get(claim.job_id)
        return job is not None and (job.state, job.fence) == (RUNNING, claim.fence)

    def end(self, job: Expected, state: JobState) -> None:
        job.state, job.expires = state, self.clock.wall + RETENTION_US

    def requeue(self, job: Expected, undone: int = 0) -> None:
        job.state, job.attempts = QUEUED, job.attempts - undone
        job.queue = (self.clock.boot_id, self.clock.boot + TTL_S * 1000)

    def forget(self, job_id: str) -> None:
        self.pictures.pop(self.jobs.pop(job_id).output or "", None)

    @rule(hours=st.sampled_from([-1, 1]))
    def wall_clock_leaps(self, hours: int) -> None:
        self.clock.wall += hours * HOUR_US

    @precondition(lambda self: any(expires <= self.clock.wall for _, expires in self.pictures.values()))
    @rule()
    def expire(self) -> None:
        doomed, error = self.call(self.retention.expire())
        assert error is None
        for one in doomed:
            self.files.delete(one.shelf, one.disk_name)
        pinned, now = self.pinned(), self.clock.wall
        for job_id, job in list(self.jobs.items()):
            if job.expires is not None and job.expires <= now and job.output not in pinned:
                self.forget(job_id)
        for name, (_, expires) in list(self.pictures.items()):
            if name.startswith("image") and expires <= now and name not in pinned:
                del self.pictures[name]
        self.replays = {key: kept for key, kept in self.replays.items() if kept[0] > now}

    @rule(reboots=st.booleans())
    def restart(self, reboots: bool) -> None:
        """Both processes start anew, after a reboot or without one."""
        self.loop.run_until_complete(self.exits.aclose())
        if reboots:
            self.clock.reboot()
            self.claims.clear()
        self.loop.run_until_complete(self.open())
        for job in self.jobs.values():
            if job.state is QUEUED and job.queue[0] != self.clock.boot_id:
                job.queue = (self.clock.boot_id, self.clock.boot + TTL_S * 1000)

    def rows(self, sql: str) -> list[dict[str, Any]]:
        return read_rows(self.data_dir, sql)

    @invariant()
    def jobs_are_as_promised(self) -> None:
        rows = {row["id"]: row for row in self.rows("SELECT *, cancel_requested_at_us IS NOT NULL AS c FROM jobs")}
        assert rows.keys() == self.jobs.keys()
        for job_id, job in self.jobs.items():
            row = rows[job_id]
            found = tuple(row[name] for name in ("state", "attempts", "fence", "c", "expires_at_us"))
            assert found == (job.state, job.attempts, job.fence, job.cancel, job.expires)
            assert job.attempts <= ATTEMPTS
            if job.state is RUNNING:
                assert (row["lease_boot_id"], row["lease_until_boot_ms"]) == job.lease
            if job.state is QUEUED:
                assert (row["queue_boot_id"], row["queue_until_boot_ms"]) == job.queue
            state, fence = self.seen.get(job_id, (job.state, 0))
            assert job.state is state or job.state in TRANSITIONS[state]
            assert row["fence"] >= fence
            self.seen[job_id] = (job.state, row["fence"])
            assert job_id not in self.told_cancelled or job.state is not COMPLETED

    @invariant()
    def pictures_are_whole_and_named_once(self) -> None:
        outputs = self.rows("SELECT o.*, j.id AS job FROM outputs o LEFT JOIN jobs j ON j.output_id = o.id")
        completed = {job_id: job.output for job_id, job in self.jobs.items() if job.state is COMPLETED}
        assert sorted(completed.items()) == sorted((row["job"], row["filename"]) for row in outputs)
        references = self.rows('SELECT * FROM "references"')
        assert len({row["disk_name"] for row in outputs + references}) == len(outputs + references)
        assert {row["filename"] for row in outputs + references} == self.pictures.keys()
        for shelf, rows in (("outputs", outputs), ("references", references)):
            for row in rows:
                content = (self.data_dir / "files" / shelf / row["disk_name"]).read_bytes()
                assert sha256(content).hexdigest() == row["sha256"]
                assert row["expires_at_us"] == self.pictures[row["filename"]][1]

    @invariant()
    def pins_are_those_of_live_jobs(self) -> None:
        found = self.rows(
            """SELECT p.job_id, p.position, coalesce(r.filename, o.filename) AS name FROM job_references AS p
            LEFT JOIN "references" AS r ON r.id = p.reference_id LEFT JOIN outputs AS o ON o.id = p.output_id"""
        )
        live = {job_id: job for job_id, job in self.jobs.items() if not job.state.ended}
        expected = {(job_id, i, name) for job_id, job in live.items() for i, name in enumerate(job.pins)}
        assert {(row["job_id"], row["position"], row["name"]) for row in found} == expected

    @invariant()
    def counters_are_exact(self) -> None:
        active = Counter(job.agent for job in self.live())
        for number, agent in enumerate(self.agents):
            (usage,) = self.rows(
                f"""SELECT used_references AS a, used_reference_bytes AS b, used_output_bytes AS c,
                (SELECT count(*) FROM "references" WHERE agent_id = {agent.id}) AS x,
                (SELECT coalesce(sum(bytes), 0) FROM "references" WHERE agent_id = {agent.id}) AS y,
                (SELECT coalesce(sum(bytes), 0) FROM outputs WHERE agent_id = {agent.id}) AS z
                FROM agents WHERE id = {agent.id}"""
            )
            assert (usage["a"], usage["b"], usage["c"]) == (usage["x"], usage["y"], usage["z"])
            counted = self.web_side.statements.get_room.sql
            row, _ = self.call(self.web_side.reader.one(counted, agent_id=agent.id))
            assert row["active"] == active[number] <= LIMIT
