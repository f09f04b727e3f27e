"""What the daemon counts of its runs and models."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from tests.conftest import make_settings, picture_bytes
from tests.infer.conftest import WAIT_S, FakePainter, is_running
from umrgen_core.agents import Agent
from umrgen_core.clock import SystemClock
from umrgen_core.config import Settings
from umrgen_core.database import Database, open_database
from umrgen_core.errors import RunError
from umrgen_core.gpus import Gpu
from umrgen_core.jobs import ErrorCode, Job, JobState
from umrgen_infer.metrics import DaemonMetrics, GpuReadings
from umrgen_infer.painter import Commission, OnStep, OutOfMemory, Painting
from umrgen_infer.run import Outcome

MODEL = {"model": "tiny-klein"}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Nobody wakes the daemon here, so it looks often."""
    return make_settings(tmp_path / "data", infer={"poll_s": 0.05})


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
async def live_database(settings: Settings, registry: CollectorRegistry) -> AsyncIterator[Database]:
    meter = DaemonMetrics(registry, settings.served_models)
    async with open_database(settings, SystemClock(), meter=meter) as opened:
        yield opened


class Worker:
    """A daemon, an agent, and what is counted."""

    def __init__(self, registry: CollectorRegistry, agent: Agent, submit: Any, wait_for: Any) -> None:
        self.registry = registry
        self.agent = agent
        self._submit = submit
        self._wait_for = wait_for
        self._ended = 0

    async def submit(self) -> Job:
        job: Job = await self._submit(self.agent)
        return job

    async def wait(self, job: Job, *tests: Any) -> None:
        """As wait_for; for the job's end also until its run has ended: the row comes first, the counts after it."""
        await self._wait_for(self.agent, job.id, *tests)
        if not tests:
            self._ended += 1
            await self.wait_until(lambda: sum(map(self.runs, Outcome)) >= self._ended)

    async def wait_until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WAIT_S
        while not holds():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.005)

    def read(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"umrgen_{name}", labels)

    def ended(self, state: JobState, code: str = "") -> float | None:
        return self.read("jobs_ended_total", **MODEL, state=state, error_code=code)

    def runs(self, outcome: Outcome) -> float:
        return self.read("runs_ended_total", **MODEL, outcome=outcome)


@pytest.fixture
async def worker(
    registry: CollectorRegistry,
    start_daemon: Callable[..., Awaitable[Any]],
    make_agent: Callable[..., Awaitable[Agent]],
    submit: Any,
    wait_for: Any,
) -> Worker:
    await start_daemon()
    return Worker(registry, await make_agent("alice", concurrent_jobs=9), submit, wait_for)


async def test_a_picture_is_counted_with_the_time_of_its_stages(worker: Worker) -> None:
    await worker.wait(await worker.submit())
    assert worker.read("worker_state", state="ready") == 1
    assert worker.read("worker_state", state="loading") == 0
    assert worker.read("worker_ready_seconds") > 0
    assert worker.read("jobs_claimed_total", **MODEL) == 1
    assert worker.ended(JobState.COMPLETED) == 1
    assert worker.runs(Outcome.COMPLETED) == 1
    for stage, seconds in (("encode", 0.1), ("denoise", 0.2), ("decode", 0.3)):
        assert worker.read("job_stage_seconds_sum", **MODEL, stage=stage) == seconds
    for stage in ("queued", "load_references", "save", "total"):
        assert worker.read("job_stage_seconds_count", **MODEL, stage=stage) == 1
    assert worker.read("model_load_seconds_count", **MODEL) == 1
    assert worker.read("model_resident", **MODEL) == 1


async def test_failed_and_cancelled_jobs_are_counted_as_such(worker: Worker, painter: FakePainter, jobs: Any) -> None:
    painter.error = RunError(ErrorCode.INVALID_REFERENCE, "unreadable", retryable=False)
    await worker.wait(await worker.submit())
    painter.error = None
    painter.hold.clear()
    job = await worker.submit()
    await worker.wait(job, is_running)
    await jobs._db.writer.run(lambda c: c.execute("UPDATE jobs SET cancel_requested_at_us = 1 WHERE id = ?", (job.id,)))
    painter.hold.set()
    await worker.wait(job)
    assert worker.ended(JobState.FAILED, ErrorCode.INVALID_REFERENCE) == 1
    assert worker.ended(JobState.CANCELLED) + worker.ended(JobState.COMPLETED) == 1
    assert worker.runs(Outcome.FAILED) == 1
    assert worker.read("leases_lost_total") == 0


async def test_a_lost_lease_and_the_result_that_nobody_wants_are_counted(
    worker: Worker, painter: FakePainter, jobs: Any
) -> None:
    painter.hold.clear()
    job = await worker.submit()
    await worker.wait(job, is_running)
    # Somebody else holds it now: another fence.
    await jobs._db.writer.run(lambda c: c.execute("UPDATE jobs SET fence = fence + 1 WHERE id = ?", (job.id,)))
    other = await worker.submit()
    painter.hold.set()
    await worker.wait(other)
    await worker.wait_until(lambda: worker.runs(Outcome.DROPPED) == 1)
    await worker.wait_until(lambda: worker.ended(JobState.COMPLETED) == 1)
    assert worker.read("leases_lost_total") in (0, 1)  # none where the picture was done before the next heartbeat


async def test_a_shortage_of_memory_is_counted_each_time(
    registry: CollectorRegistry, worker: Worker, painter: FakePainter, monkeypatch: pytest.MonkeyPatch
) -> None:
    paint, tries = painter.paint, []

    def paint_lean(commission: Commission, on_step: OnStep, *, lean: bool = False) -> Painting:
        tries.append(lean)
        if not lean:
            raise OutOfMemory
        return paint(commission, on_step)

    monkeypatch.setattr(painter, "paint", paint_lean)
    await worker.wait(await worker.submit())
    assert tries == [False, True]
    assert worker.read("out_of_memory_total", **MODEL) == 1
    assert worker.ended(JobState.COMPLETED) == 1


def test_models_come_and_go(registry: CollectorRegistry) -> None:
    metrics = DaemonMetrics(registry, ["one", "two"])
    metrics.model_loaded("one", 3.0)
    metrics.model_evicted("one")
    metrics.model_loaded("two", 4.0)
    metrics.model_not_loaded("one")
    read = registry.get_sample_value
    assert read("umrgen_model_resident", {"model": "one"}) == 0
    assert read("umrgen_model_resident", {"model": "two"}) == 1
    assert read("umrgen_model_evictions_total", {"model": "one"}) == 1
    assert read("umrgen_model_load_failures_total", {"model": "one"}) == 1
    assert read("umrgen_model_load_seconds_sum", {"model": "two"}) == 4


def test_a_reference_that_is_kept_is_a_hit(registry: CollectorRegistry, settings: Settings) -> None:
    from tests.infer.test_reference_cache import PICTURE_BYTES
    from umrgen_core.files import FileStore, Shelf
    from umrgen_core.jobs import Pin
    from umrgen_infer.reference_cache import ReferenceCache

    files = FileStore(settings.storage.data_dir)
    files.prepare()
    published = files.publish_bytes(Shelf.REFERENCES, "one.png", picture_bytes())
    pin = Pin(0, 1, None, "one.png", published.sha256, published.bytes)
    cache = ReferenceCache(100 * PICTURE_BYTES, DaemonMetrics(registry, ["one"]))
    profile = settings.served_models["tiny-klein"]
    for _ in range(3):
        cache.load(files, (pin,), profile, profile.render_size(128, 96))
    assert registry.get_sample_value("umrgen_reference_cache_lookups_total", {"result": "hit"}) == 2
    assert registry.get_sample_value("umrgen_reference_cache_lookups_total", {"result": "miss"}) == 1


class TwoGpus:
    """A driver that shows two devices, one of which tells less than the other."""

    def read(self) -> list[Gpu]:
        return [Gpu(0, "GPU-a", "a card", 10, 100, 0.5, 60, 200.5), Gpu(1, "GPU-b", "a part", 5, 50, None, None, None)]


def test_each_device_has_the_figures_that_it_tells(registry: CollectorRegistry) -> None:
    registry.register(GpuReadings(TwoGpus()))
    read = registry.get_sample_value
    assert read("umrgen_gpus") == 2
    assert read("umrgen_gpu_memory_used_bytes", {"gpu": "1"}) == 5
    assert read("umrgen_gpu_utilisation_ratio", {"gpu": "0"}) == 0.5
    assert read("umrgen_gpu_utilisation_ratio", {"gpu": "1"}) is None
    assert read("umrgen_gpu_power_watts", {"gpu": "0"}) == 200.5
