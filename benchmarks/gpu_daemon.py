"""The whole daemon over a real store, with a painter that was made elsewhere, for `benchmarks.gpu`."""

from __future__ import annotations

import asyncio
import io
import itertools
import statistics
import tempfile
import time
from pathlib import Path

from PIL import Image

from umrgen_core.agent_store import AgentStore
from umrgen_core.agents import Agent
from umrgen_core.clock import SystemClock
from umrgen_core.config import Settings, load_settings
from umrgen_core.database import Database, open_database
from umrgen_core.files import FileStore, Shelf
from umrgen_core.job_store import JobStore
from umrgen_core.jobs import Job
from umrgen_core.keys import mint_key
from umrgen_core.names import new_job_id
from umrgen_core.profiles import ModelProfile
from umrgen_core.reference_store import NewReference, ReferenceStore
from umrgen_core.requests import AcceptedRequest
from umrgen_infer.daemon import Daemon
from umrgen_infer.painter import Commission, OnStep, Painter, Painting

ROOT = Path(__file__).parents[1]
MODEL = "klein"
POLL_S = 0.01
ALL_S = 300.0


class WatchedPainter:
    """A painter, and when each of its paintings began and ended."""

    def __init__(self, painter: Painter) -> None:
        self._painter = painter
        self.spans: list[tuple[float, float]] = []

    def paint(self, commission: Commission, on_step: OnStep, *, lean: bool = False) -> Painting:
        """Paint, and note the time: the device is idle before and after."""
        began = time.perf_counter()
        painting = self._painter.paint(commission, on_step, lean=lean)
        self.spans.append((began, time.perf_counter()))
        return painting

    def close(self) -> None:
        """The painter is used again."""


def measure_daemon(
    painter: Painter, profile: ModelProfile, side_px: int, references: list[Image.Image], steps: int, jobs: int
) -> dict[str, float]:
    """Queue `jobs` at once and paint them all: seconds a picture and gaps from one painting to the next."""
    watched = WatchedPainter(painter)
    with tempfile.TemporaryDirectory() as folder:
        settings = _make_settings(Path(folder) / "data", profile)
        published_s = asyncio.run(_run(settings, watched, side_px, references, steps, jobs))
    spans = watched.spans[1:]  # the first waits for the daemon to start
    gaps = [later[0] - earlier[1] for earlier, later in itertools.pairwise(spans)]
    return {
        "s_a_picture": (spans[-1][1] - spans[0][0]) / len(spans),
        "gap_ms_p50": statistics.median(gaps) * 1e3,
        "gap_ms_max": max(gaps) * 1e3,
        "last_painted_to_completed_s": published_s - spans[-1][1],
        "jobs": jobs,
    }


async def _run(
    settings: Settings, painter: WatchedPainter, side_px: int, references: list[Image.Image], steps: int, jobs: int
) -> float:
    clock = SystemClock()
    async with open_database(settings, clock) as database:
        agent = await _make_agent(database, settings, jobs)
        names = [await _keep(database, settings, agent, index, image) for index, image in enumerate(references)]
        store = JobStore(database, settings)
        queued: list[Job] = []
        for seed in range(jobs):
            request = AcceptedRequest(MODEL, "a red cat", "", side_px, side_px, steps, seed, tuple(names), ())
            job, _ = await store.enqueue(agent, new_job_id(), request, "benchmark")
            queued.append(job)
        daemon = Daemon(settings, clock, database, lambda _: painter)
        serving = asyncio.create_task(daemon.serve())
        async with asyncio.timeout(ALL_S):
            await _wait(store, agent, queued)
        ended = time.perf_counter()
        daemon.stop()
        await serving
    return ended


async def _wait(store: JobStore, agent: Agent, jobs: list[Job]) -> None:
    """Until every job has ended. Raises RuntimeError when one did not complete."""
    for queued in jobs:
        while not (job := await _get(store, agent, queued)).state.ended:  # noqa: ASYNC110 - the store is what is asked
            await asyncio.sleep(POLL_S)
        if job.error_code:
            raise RuntimeError(f"a job failed: {job.error_code}: {job.error}")


async def _get(store: JobStore, agent: Agent, queued: Job) -> Job:
    job = await store.find(agent, queued.id)
    if job is None:
        raise RuntimeError(f"{queued.id} has vanished")
    return job


def _make_settings(data_dir: Path, profile: ModelProfile) -> Settings:
    settings = load_settings(ROOT / "config.toml")
    changes = {
        "models": {MODEL: profile.model_copy(update={"memory_bytes": 0})},
        "infer": settings.infer.model_copy(update={"models": [MODEL]}),
        "storage": settings.storage.model_copy(update={"data_dir": data_dir, "ballast_bytes": 0}),
    }
    return settings.model_copy(update=changes)


async def _make_agent(database: Database, settings: Settings, jobs: int) -> Agent:
    agents, key = AgentStore(database, settings.limits.model_copy(update={"concurrent_jobs": jobs})), mint_key()
    await agents.create_agent("busy", "sid_ext_busy", key)
    agent = await agents.find_by_key(key)
    if agent is None:
        raise RuntimeError("the agent that was just made is not found")
    return agent


async def _keep(database: Database, settings: Settings, agent: Agent, index: int, image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95, subsampling=0)
    files, name = FileStore(settings.storage.data_dir), f"reference-{index}.jpg"
    files.prepare()
    kept = files.publish_bytes(Shelf.REFERENCES, name, buffer.getvalue())
    source = (kept.sha256, image.width, image.height, kept.bytes, "jpeg")
    new = NewReference(f"image_{index}.jpg", name, "jpeg", image.width, image.height, kept.bytes, kept.sha256, *source)
    return (await ReferenceStore(database, settings.storage.reference_retention_s).put(agent, new)).filename
