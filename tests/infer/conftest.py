"""The real daemon over a real store, with a painter that the test steers."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from PIL import Image

from umrgen_core.agents import Agent
from umrgen_core.clock import SystemClock
from umrgen_core.config import Settings
from umrgen_core.database import Database, open_database
from umrgen_core.job_store import JobStore
from umrgen_core.jobs import Job, JobState
from umrgen_core.loras import LoraShelf
from umrgen_core.names import new_job_id
from umrgen_core.requests import accept_request
from umrgen_infer.daemon import Daemon
from umrgen_infer.painter import Commission, OnStep, Painting
from umrgen_infer.residency import LoadPainter

WAIT_S = 10.0


class FakePainter:
    """Paints plain grey at once, or as slowly and as badly as the test says."""

    def __init__(self) -> None:
        self.commissions: list[Commission] = []
        self.hold = threading.Event()
        self.hold.set()
        self.error: BaseException | None = None
        self.image: Image.Image | None = None
        self.closed = False

    def close(self) -> None:
        self.closed = True

    def paint(self, commission: Commission, on_step: OnStep, *, lean: bool = False) -> Painting:
        self.commissions.append(commission)
        for step in range(1, commission.steps + 1):
            on_step(step)
            while not self.hold.wait(0.01):
                on_step(step)  # a hung pipeline would not even do this
        if self.error is not None:
            raise self.error
        image = self.image or Image.new("RGB", (commission.width, commission.height), (120, 120, 120))
        return Painting(image, {"encode": 0.1, "denoise": 0.2, "decode": 0.3})


@pytest.fixture
def painter() -> FakePainter:
    return FakePainter()


@pytest.fixture
async def live_database(settings: Settings) -> AsyncIterator[Database]:
    """A store on the machine's own clock: the daemon's tasks run in real time."""
    async with open_database(settings, SystemClock()) as opened:
        yield opened


@pytest.fixture
def database(live_database: Database) -> Database:
    return live_database


@pytest.fixture
async def start_daemon(
    settings: Settings, database: Database, painter: FakePainter
) -> AsyncIterator[Callable[..., Awaitable[tuple[Daemon, asyncio.Task[int]]]]]:
    started: list[tuple[Daemon, asyncio.Task[int]]] = []

    async def start(
        changed: Settings | None = None, load: LoadPainter = lambda _: painter, **options: Any
    ) -> tuple[Daemon, asyncio.Task[int]]:
        daemon = Daemon(changed or settings, database.clock, database, load, **options)
        started.append((daemon, asyncio.create_task(daemon.serve())))
        return started[-1]

    yield start
    painter.hold.set()
    for daemon, task in started:
        daemon.stop()
        await asyncio.wait_for(task, WAIT_S)


@pytest.fixture
def submit(jobs: JobStore, settings: Settings) -> Callable[..., Awaitable[Job]]:
    async def submit_one(agent: Agent, **fields: Any) -> Job:
        body = {"prompt": "a star", "width": 128, "height": 96, **fields}
        request = accept_request(body, settings.served_models, LoraShelf(settings.infer.loras))
        job, _ = await jobs.enqueue(agent, new_job_id(), request, "test")
        return job

    return submit_one


@pytest.fixture
def wait_for(jobs: JobStore) -> Callable[..., Awaitable[Job]]:
    """`await wait_for(agent, job_id, lambda job: job.step > 1)`; without a test: until the job has ended."""

    async def wait(agent: Agent, job_id: str, test: Callable[[Job], bool] = lambda job: job.state.ended) -> Job:
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            job = await jobs.find(agent, job_id)
            assert job is not None
            if test(job):
                return job
            await asyncio.sleep(0.01)
        raise AssertionError(f"{job_id} is still {job.state} at step {job.step}")

    return wait


def is_running(job: Job) -> bool:
    return job.state is JobState.RUNNING
