"""Flame graphs of the three hottest paths: `python -m benchmarks.flame [PATH …]`.

Needs py-spy (`pip install py-spy`, in whatever environment: --py-spy says where it is). Each path is kept busy
for as long as its process is watched. SVGs go to build/bench/flames; with --raw the folded stacks instead.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from benchmarks.figures.enqueue_http import BODY
from benchmarks.load import Ask, Load, run_load
from benchmarks.made_jobs import make_maker
from benchmarks.report import FOLDER
from benchmarks.service import NULL_DAEMON, Box, open_box
from umrgen_core.clock import SystemClock
from umrgen_core.database import open_database

SECONDS = 10
CLIENTS = 4
RATE = 500
"""Samples a second."""
SPARE = 2.0
"""How many times as much work is given as can be done meanwhile."""


def read_statuses(box: Box, seconds: int) -> Iterator[int]:
    """The web tier under status reads of a completed job."""
    key = box.make_keys(1)[0]
    job_id = asyncio.run(_complete_one(box, key))
    yield from _load_web(box, [[Ask(f"/api/v1/status/{job_id}", key=key)]] * CLIENTS, int(3000 * seconds * SPARE))


def generate(box: Box, seconds: int) -> Iterator[int]:
    """The web tier under POST /generate from several agents."""
    clients = [[Ask("/api/v1/generate", "POST", key, BODY)] for key in box.make_keys(CLIENTS)]
    yield from _load_web(box, clients, int(1500 * seconds * SPARE))


def run_jobs(box: Box, seconds: int) -> Iterator[int]:
    """The daemon on a long queue of jobs whose painter only returns."""
    asyncio.run(_queue(box, box.make_keys(1)[0], int(200 * seconds * SPARE)))
    yield box.start_daemon(NULL_DAEMON).process.pid


PATHS: Mapping[str, Callable[[Box, int], Iterator[int]]] = {
    "status_read": read_statuses,
    "generate": generate,
    "job": run_jobs,
}
"""Each yields the process to be watched, busy until the generator is closed or the work is done."""


def _load_web(box: Box, clients: list[list[Ask]], count: int) -> Iterator[int]:
    web = box.start_web()
    run_load(Load(web.port, clients, 400))
    # When all has been seen the server goes down under its clients: that is no failure.
    loading = threading.Thread(target=_load_until_it_ends, args=(Load(web.port, clients, count),), daemon=True)
    loading.start()
    yield web.pid


def _load_until_it_ends(load: Load) -> None:
    try:
        run_load(load)
    except SystemExit:
        return


async def _complete_one(box: Box, key: str) -> str:
    async with open_database(box.settings, SystemClock()) as database:
        maker = await make_maker(box.settings, database, key)
        job_id = await maker.queue()
        await maker.complete(await maker.claim(), b"not a picture")
        return job_id


async def _queue(box: Box, key: str, jobs: int) -> None:
    async with open_database(box.settings, SystemClock()) as database:
        maker = await make_maker(box.settings, database, key)
        await asyncio.gather(*(maker.queue() for _ in range(jobs)))


@contextmanager
def busy(name: str, folder: Path, seconds: int) -> Iterator[int]:
    """The process of a path while it is busy."""
    with open_box(folder) as box:
        yield from PATHS[name](box, seconds)


def main() -> None:
    """Watch each path and write its picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", metavar="PATH", help=f"of: {', '.join(PATHS)}; default: all")
    parser.add_argument("--seconds", type=int, default=SECONDS)
    parser.add_argument("--raw", action="store_true", help="folded stacks instead of pictures")
    parser.add_argument("--py-spy", default=shutil.which("py-spy"), help="default: the one on PATH")
    options = parser.parse_args()
    if options.py_spy is None or set(options.paths) - set(PATHS):
        parser.error("py-spy is not on PATH" if options.py_spy is None else f"paths are: {', '.join(PATHS)}")
    folder = FOLDER / "flames"
    folder.mkdir(parents=True, exist_ok=True)
    form, ending = ("raw", "txt") if options.raw else ("flamegraph", "svg")
    for name in options.paths or list(PATHS):
        picture = folder / f"{name}.{ending}"
        with busy(name, FOLDER, options.seconds) as pid:
            watch = ["record", "--pid", str(pid), "--duration", str(options.seconds), "--rate", str(RATE)]
            command = [options.py_spy, *watch, "--nonblocking", "--format", form, "--output", str(picture)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        print(picture)


if __name__ == "__main__":
    main()
