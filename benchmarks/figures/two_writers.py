"""Two processes that write one store as fast as they can: neither may starve the other."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from statistics import median

from benchmarks.figure import Figure, Judged, Plan, Result, take_percentile
from benchmarks.made_jobs import JobMaker, make_maker
from benchmarks.rounds import alternate
from benchmarks.service import Box, open_box
from benchmarks.stores import clear_jobs
from umrgen_core.clock import SystemClock
from umrgen_core.config import Settings
from umrgen_core.database import open_database

SECONDS = 3.0
CALLERS = 16
ANSWER_S = 60.0
AHEAD_S = 0.1
"""Both begin at one moment, so far ahead that both have heard of it."""
WEB, DAEMON = "web tier", "daemon"


@dataclass(frozen=True, slots=True)
class Writes:
    """What one process wrote."""

    per_s: float
    p50_ms: float
    p99_ms: float


def measure(plan: Plan) -> Result:
    """A writer as the web tier is one, with many callers that enqueue; one as the daemon is, that records progress."""
    seconds = plan.seconds(SECONDS)
    with open_box(plan.folder) as box:
        key = box.make_keys(1)[0]
        writers = {name: _Writer(box, key, name) for name in (WEB, DAEMON)}
        try:
            ways = {
                WEB: lambda: _write_together(box, {WEB: writers[WEB]}, seconds),
                DAEMON: lambda: _write_together(box, {DAEMON: writers[DAEMON]}, seconds),
                "both": lambda: _write_together(box, writers, seconds),
            }
            taken = alternate(plan.rounds, ways)
        finally:
            for writer in writers.values():
                writer.close()
    return Result([_judge(name, taken["both"], taken[name]) for name in writers])


def _judge(name: str, both: list[dict[str, Writes]], alone: list[dict[str, Writes]]) -> Figure:
    together, lone = [taken[name] for taken in both], [taken[name] for taken in alone]
    return Figure(
        f"two_writers.{name.replace(' ', '_')}",
        f"two processes write at saturation: p99 of a write of the {name}",
        "ms",
        [writes.p99_ms for writes in together],
        [writes.p99_ms for writes in lone],
        Judged.VALUE,
        beside={
            "p50, ms": median(writes.p50_ms for writes in together),
            "writes/s": median(writes.per_s for writes in together),
            "alone: writes/s": median(writes.per_s for writes in lone),
        },
    )


class _Writer:
    """A process that writes for as long as it is told to, and answers what it wrote."""

    def __init__(self, box: Box, key: str, name: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._channel, theirs = context.Pipe()
        self._process = context.Process(
            target=serve_writer, args=(theirs, box.settings, key, name), daemon=True, name=name
        )
        self._process.start()
        theirs.close()
        self._channel.recv()  # it is ready

    def begin(self, at: float, seconds: float) -> None:
        self._channel.send((at, seconds))

    def finish(self) -> Writes:
        if not self._channel.poll(ANSWER_S):
            raise SystemExit("a writer does not answer")
        writes: Writes = self._channel.recv()
        return writes

    def close(self) -> None:
        self._channel.send(None)
        self._process.join(ANSWER_S)


def _write_together(box: Box, writers: Mapping[str, _Writer], seconds: float) -> dict[str, Writes]:
    clear_jobs(box)
    at = time.monotonic() + AHEAD_S
    for writer in writers.values():
        writer.begin(at, seconds)
    return {name: writer.finish() for name, writer in writers.items()}


def serve_writer(channel: Connection, settings: Settings, key: str, name: str) -> None:
    """Entry of a writer's process."""
    asyncio.run(_serve_writer(channel, settings, key, name))


async def _serve_writer(channel: Connection, settings: Settings, key: str, name: str) -> None:
    async with open_database(settings, SystemClock()) as database:
        await database.integrity.wait()
        maker = await make_maker(settings, database, key)
        channel.send("ready")
        write = _enqueue if name == WEB else _record_progress
        while (told := await asyncio.to_thread(channel.recv)) is not None:
            at, seconds = told
            await asyncio.sleep(at - time.monotonic())
            channel.send(_summarise(await write(maker, at + seconds), seconds))


async def _enqueue(maker: JobMaker, end: float) -> list[float]:
    latencies: list[float] = []

    async def call() -> None:
        while (began := time.monotonic()) < end:
            await maker.queue()
            latencies.append(time.monotonic() - began)

    await asyncio.gather(*(call() for _ in range(CALLERS)))
    return latencies


async def _record_progress(maker: JobMaker, end: float) -> list[float]:
    await maker.queue()
    claim = await maker.claim()
    latencies: list[float] = []
    while (began := time.monotonic()) < end:
        await maker.claims.put_progress(claim, 1 + len(latencies) % 3)
        latencies.append(time.monotonic() - began)
    return latencies


def _summarise(latencies: list[float], seconds: float) -> Writes:
    p50_ms, p99_ms = (take_percentile(latencies, percent) * 1000 for percent in (50, 99))
    return Writes(len(latencies) / seconds, p50_ms, p99_ms)
