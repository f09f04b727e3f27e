"""How long the pipeline waits between two jobs: `python -m benchmarks.gap`.

The real daemon over a real store on the disk, with a painter that only sleeps: the gap is from the last
step of one job to the call of `paint` for the next. All jobs are queued before, as on a busy box.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from umrgen_core.agent_store import AgentStore
from umrgen_core.agents import Agent
from umrgen_core.clock import SystemClock
from umrgen_core.config import Settings, load_settings
from umrgen_core.database import Database, open_database
from umrgen_core.files import FileStore, Shelf
from umrgen_core.job_store import JobStore
from umrgen_core.keys import mint_key
from umrgen_core.names import new_job_id
from umrgen_core.reference_store import NewReference, ReferenceStore
from umrgen_core.requests import AcceptedRequest
from umrgen_infer.daemon import Daemon
from umrgen_infer.painter import Commission, OnStep, Painting

ROOT = Path(__file__).parents[1]
STEPS = 4
POLL_S = 0.02
ALL_S = 120.0
MODEL = "sleeper"
WARM_UP = 5


class SleepingPainter:
    """Sleeps through its steps and notes when the last one ended and when the next job came."""

    def __init__(self, step_s: float) -> None:
        self._step_s = step_s
        self._last_step_s: float | None = None
        self._pictures: dict[tuple[int, int], Image.Image] = {}
        self.gaps_s: list[float] = []

    def paint(self, commission: Commission, on_step: OnStep, *, lean: bool = False) -> Painting:  # noqa: ARG002
        """Sleep `steps` times, and return noise of the size asked for."""
        if self._last_step_s is not None:
            self.gaps_s.append(time.perf_counter() - self._last_step_s)
        for step in range(1, commission.steps + 1):
            time.sleep(self._step_s)
            on_step(step)
        self._last_step_s = time.perf_counter()
        return Painting(self._find_picture(commission.width, commission.height), {})

    def _find_picture(self, width: int, height: int) -> Image.Image:
        if (width, height) not in self._pictures:
            noise = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
            self._pictures[width, height] = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
        return self._pictures[width, height]

    def close(self) -> None:
        """Nothing to let go of."""


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=60)
    parser.add_argument("--step-ms", type=float, default=20, help="time of one of the 4 steps")
    options = parser.parse_args()
    cases = {"64 px": (64, 0), "1024 px": (1024, 0), "1024 px, 2 references": (1024, 2)}
    figures = {
        name: _spread(asyncio.run(measure_gaps(side, references, options.jobs, options.step_ms / 1000)))
        for name, (side, references) in cases.items()
    }
    print(json.dumps(figures, indent=2))


async def measure_gaps(
    side_px: int, references: int, jobs: int, step_s: float, place: Path | None = None
) -> list[float]:
    """Seconds between each two of `jobs` jobs. The first of them warm up."""
    painter = SleepingPainter(step_s)
    with tempfile.TemporaryDirectory(dir=place) as folder:
        settings, clock = _make_settings(Path(folder) / "data"), SystemClock()
        async with open_database(settings, clock) as database:
            agent = await _make_agent(database, settings, jobs)
            names = [await _keep_reference(database, settings, agent, seed) for seed in range(references)]
            store = JobStore(database, settings)
            for seed in range(jobs):
                request = AcceptedRequest(MODEL, "a star", "", side_px, side_px, STEPS, seed, tuple(names), ())
                await store.enqueue(agent, new_job_id(), request, "gap")
            daemon = Daemon(settings, clock, database, lambda _: painter)
            serving = asyncio.create_task(daemon.serve())
            async with asyncio.timeout(ALL_S):
                while len(painter.gaps_s) < jobs - 1:  # noqa: ASYNC110 - the painter works in a thread
                    await asyncio.sleep(POLL_S)
            daemon.stop()
            await serving
    return painter.gaps_s


def _make_settings(data_dir: Path) -> Settings:
    settings = load_settings(ROOT / "config.toml")
    profile = settings.models["flux2-klein-4b"].model_copy(update={"memory_bytes": 0})
    changes = {
        "models": {MODEL: profile},
        "infer": settings.infer.model_copy(update={"models": [MODEL]}),
        "storage": settings.storage.model_copy(update={"data_dir": data_dir, "ballast_bytes": 0}),
    }
    return settings.model_copy(update=changes)


async def _make_agent(database: Database, settings: Settings, jobs: int) -> Agent:
    limits = settings.limits.model_copy(update={"concurrent_jobs": jobs})
    agents, key = AgentStore(database, limits), mint_key()
    await agents.create_agent("busy", "sid_ext_busy", key)
    agent = await agents.find_by_key(key)
    if agent is None:
        raise RuntimeError("the agent that was just made is not found")
    return agent


async def _keep_reference(database: Database, settings: Settings, agent: Agent, seed: int) -> str:
    """A noisy 1024 px JPEG as an upload leaves it."""
    pixels = np.random.default_rng(seed).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((1024, 1024)).save(buffer, "JPEG", quality=95, subsampling=0)
    files, name = FileStore(settings.storage.data_dir), f"reference-{seed}.jpg"
    files.prepare()
    kept = files.publish_bytes(Shelf.REFERENCES, name, buffer.getvalue())
    source = (kept.sha256, 1024, 1024, kept.bytes, "jpeg")
    new = NewReference(f"image_{seed}.jpg", name, "jpeg", 1024, 1024, kept.bytes, kept.sha256, *source)
    return (await ReferenceStore(database, settings.storage.reference_retention_s).put(agent, new)).filename


def _spread(gaps_s: list[float]) -> dict[str, float]:
    """Milliseconds; the first jobs are dropped as warm-up."""
    gaps_ms = sorted(gap * 1000 for gap in gaps_s[WARM_UP:])
    hundredths = statistics.quantiles(gaps_ms, n=100)
    figures = {"p50_ms": hundredths[49], "p95_ms": hundredths[94], "max_ms": gaps_ms[-1]}
    return {name: round(value, 2) for name, value in figures.items()} | {"gaps": len(gaps_ms)}


if __name__ == "__main__":
    main()
