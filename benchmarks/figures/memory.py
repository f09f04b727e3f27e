"""Memory over a long time, and how long each process takes to start."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import ExitStack

from benchmarks.cpu import read_cpu_s, read_rss_mb
from benchmarks.figure import Figure, Judged, Plan, Result, Sweep
from benchmarks.load import Ask, Load, run_load
from benchmarks.made_jobs import make_maker
from benchmarks.service import NULL_DAEMON, Box, open_box
from umrgen_core.clock import SystemClock
from umrgen_core.database import open_database

REQUESTS = 100_000
JOBS = 10_000
READINGS = 10
CLIENTS = 8
WEB_BAR_MB = 100.0
FLAT_BAR = 1.1
BODY = b'{"prompt": "a red circle on a white background"}'
POLL_S = 0.2
MOST_S = 600.0
QUEUED_AT_ONCE = 100
Readings = list[tuple[float, float]]
"""Requests or jobs so far, and megabytes."""


def measure(plan: Plan) -> Result:
    """Once over the long run, and the starts round by round."""
    web, (daemon, job_cpu_ms) = read_web(plan), read_daemon(plan)
    figures = [
        Figure(
            "memory.web",
            f"web tier: memory after {web[-1][0]:,.0f} requests",
            "MB",
            [web[-1][1]],
            judged=Judged.VALUE,
            bar=WEB_BAR_MB,
            beside={"after the start, MB": web[0][1]},
        ),
        _judge_flat("memory.web_flat", "web tier: memory at the end ÷ after a fifth", web),
        _judge_flat(
            "memory.daemon_flat",
            f"daemon: memory after {daemon[-1][0]:,.0f} jobs ÷ after a fifth",
            daemon,
            {"processor time of a job, ms": job_cpu_ms},
        ),
        *measure_starts(plan),
    ]
    sweeps = [
        Sweep("memory_web", "Memory of the web tier", "requests", "MB", {"web tier": web}),
        Sweep("memory_daemon", "Memory of the daemon, painting nothing", "jobs", "MB", {"daemon": daemon}),
    ]
    return Result(figures, sweeps)


def _judge_flat(name: str, title: str, readings: Readings, beside: dict[str, float] | None = None) -> Figure:
    early = readings[len(readings) // 5][1]
    return Figure(name, title, "MB", [readings[-1][1]], [early], bar=FLAT_BAR, beside=beside or {})


def read_web(plan: Plan) -> Readings:
    """Reads of every kind, and a generate to every twenty of them."""
    requests = plan.count(REQUESTS, 400)
    with open_box(plan.folder) as box:
        keys = box.make_keys(CLIENTS)
        job_id = asyncio.run(_queue(box, keys[0], 1))[0]
        reads = ("/api/v1/me", "/api/v1/models", "/api/v1/jobs?limit=5", "/healthz", "/api/v1/references")
        asks = [Ask(reads[turn % len(reads)], key=keys[0]) for turn in range(19)]
        clients = [[*asks, Ask(f"/api/v1/status/{job_id}", key=keys[0]), Ask("/api/v1/generate", "POST", key, BODY)]
                   for key in keys]  # fmt: skip
        web = box.start_web()
        readings = [(0.0, read_rss_mb(web.pid))]
        for reading in range(1, READINGS + 1):
            run_load(Load(web.port, clients, requests // READINGS, most_s=MOST_S))
            readings.append((float(reading * (requests // READINGS)), read_rss_mb(web.pid)))
    return readings


async def _queue(box: Box, key: str, jobs: int) -> list[str]:
    async with open_database(box.settings, SystemClock()) as database:
        maker = await make_maker(box.settings, database, key)
        return list(await asyncio.gather(*(maker.queue() for _ in range(jobs))))


def read_daemon(plan: Plan) -> tuple[Readings, float]:
    """Jobs of 64 px whose painter only returns, so that everything around painting is done as often as possible.

    The readings, and milliseconds of processor time for each job.
    """
    jobs = plan.count(JOBS, 100)
    with open_box(plan.folder) as box:
        key = box.make_keys(1)[0]
        pid = box.start_daemon(NULL_DAEMON).process.pid
        before = read_cpu_s(pid)
        readings = asyncio.run(_read_daemon(box, key, jobs, lambda: read_rss_mb(pid)))
        return readings, (read_cpu_s(pid) - before) / jobs * 1000


async def _read_daemon(box: Box, key: str, jobs: int, read: Callable[[], float]) -> Readings:
    readings = [(0.0, read())]
    step = max(1, jobs // READINGS)
    async with open_database(box.settings, SystemClock()) as database, asyncio.timeout(MOST_S):
        maker, done = await make_maker(box.settings, database, key), 0
        while done < jobs:
            job_ids = await asyncio.gather(*(maker.queue() for _ in range(min(QUEUED_AT_ONCE, jobs - done))))
            done += len(job_ids)
            for job_id in reversed(job_ids):  # the last that was queued ends last: the others seldom need a look
                while not (await maker.find(job_id)).state.ended:  # noqa: ASYNC110 - another process ends it
                    await asyncio.sleep(POLL_S)
            if done // step > (done - len(job_ids)) // step:
                readings.append((float(done), read()))
    return readings


def measure_starts(plan: Plan) -> list[Figure]:
    """Seconds from exec: of the web tier to its first answer, of the daemon until the embedded model is loaded."""
    with open_box(plan.folder) as box:
        box.make_keys(1)  # makes the store, which happens once in a lifetime
        web = [_time_start(box, lambda box: box.start_web()) for _ in range(plan.rounds)]
        daemon = [_time_start(box, lambda box: box.start_daemon()) for _ in range(plan.rounds)]
    return [
        Figure("start.web", "web tier: exec → first answer", "s", web, judged=Judged.VALUE),
        Figure("start.daemon", "daemon: exec → embedded model loaded", "s", daemon, judged=Judged.VALUE),
    ]


def _time_start(box: Box, start: Callable[[Box], object]) -> float:
    with ExitStack() as exits:
        own = Box(box.data_dir, exits)
        began = time.perf_counter()
        start(own)
        return time.perf_counter() - began
