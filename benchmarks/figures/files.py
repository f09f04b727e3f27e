"""Serving a finished picture beside aiohttp's bare static handler."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from statistics import median

from benchmarks.figure import Figure, Plan, Result
from benchmarks.figures.status_read import Cost, cost_of
from benchmarks.load import Ask
from benchmarks.made_jobs import make_maker
from benchmarks.rounds import alternate
from benchmarks.service import Box, open_box, running_yardstick
from umrgen_core.clock import SystemClock
from umrgen_core.database import open_database

BAR = 0.8


@dataclass(frozen=True, slots=True)
class Size:
    """A picture, and how often it is read in a round."""

    name: str
    title: str
    bytes: int
    reads: int
    bar: float | None


SIZES = (
    Size("large", "a picture of 1.5 MB (as of 1024 px)", 1_500_000, 1000, BAR),
    Size("small", "a picture of 10 kB (as of 64 px; what is fixed for each request shows)", 10_000, 2000, None),
)


def measure(plan: Plan) -> Result:
    """Requests a second of both, for a large picture and a small one."""
    return Result([_measure_size(plan, size) for size in SIZES])


def _measure_size(plan: Plan, size: Size) -> Figure:
    reads, content = plan.count(size.reads, 20), bytes(size.bytes)
    with open_box(plan.folder) as box, running_yardstick(box.data_dir.parent / "static") as bare:
        (box.data_dir.parent / "static" / "picture.png").write_bytes(content)
        path = _make_picture(box, content)
        web = box.start_web()
        taken = alternate(
            plan.rounds,
            {
                "web": lambda: cost_of(web, [Ask(path)], reads),
                "bare": lambda: cost_of(bare, [Ask("/static/picture.png")], reads),
            },
        )
    return Figure(
        f"files.{size.name}",
        f"{size.title}: requests a second ÷ those of the bare static handler",
        "requests/s",
        [cost.per_s for cost in taken["web"]],
        [cost.per_s for cost in taken["bare"]],
        bar=size.bar,
        at_least=True,
        beside={
            "processor time, µs": median(map(_cpu_us, taken["web"])),
            "bare: processor time, µs": median(map(_cpu_us, taken["bare"])),
        },
    )


def _cpu_us(cost: Cost) -> float:
    return cost.cpu_us


def _make_picture(box: Box, content: bytes) -> str:
    """The path of a picture with these bytes."""
    key = box.make_keys(1)[0]

    async def make() -> str:
        async with open_database(box.settings, SystemClock()) as database:
            maker = await make_maker(box.settings, database, key)
            await maker.queue()
            return (await maker.complete(await maker.claim(), content)).path

    return asyncio.run(make())
