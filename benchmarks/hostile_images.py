"""What hostile files cost the child that decodes uploads: `python -m benchmarks.hostile_images`.

Every file of tests/hostile goes through a real child with its real limits, one at a time. For each: its
bytes, what became of it, the wall seconds, and the child's processor seconds and peak of resident memory.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.hostile.case import Case, Fate
from tests.hostile.corpus import corpus
from umrgen_api.sanitiser_pool import SanitiserPool
from umrgen_core.errors import InvalidImage
from umrgen_core.sections import UploadSettings

SAMPLE_S = 0.01
HEADER_S = 1.0
"""What its header tells must be told within this time of one core."""
RESET_PEAK = "5"


@dataclass(frozen=True, slots=True)
class Cost:
    """What one file came to."""

    case: Case
    bytes: int
    outcome: str
    wall_s: float
    cpu_s: float
    rss_bytes: int
    child_died: bool

    @property
    def as_expected(self) -> bool:
        """Whether it met its fate, within the time that this allows."""
        if (self.outcome == "taken") != (self.case.fate is Fate.TAKEN):
            return False
        if self.child_died != (self.case.fate is Fate.LIMIT):
            return False
        return self.case.fate is not Fate.HEADER or self.cpu_s <= HEADER_S

    def row(self) -> str:
        """A line of the table."""
        flag = "" if self.as_expected else "  UNEXPECTED"
        return (
            f"{self.case.name:58} {self.bytes:>9} {self.wall_s:>6.2f} {self.cpu_s:>6.2f} "
            f"{self.rss_bytes / 2**20:>6.0f}  {self.outcome}{flag}"
        )


class Watch:
    """Reads what the kernel tells of a process, until the process is gone."""

    def __init__(self, pid: int) -> None:
        self._folder = Path("/proc") / str(pid)
        self.cpu_s, self.rss_bytes = 0.0, 0
        with suppress(OSError):
            (self._folder / "clear_refs").write_text(RESET_PEAK)
        self.look()
        self._before_s = self.cpu_s

    def look(self) -> None:
        """Take the figures as they stand."""
        with suppress(OSError, IndexError):
            self.cpu_s = int((self._folder / "schedstat").read_text().split()[0]) / 1e9
            status = (self._folder / "status").read_text()
            self.rss_bytes = int(status.split("VmHWM:")[1].split()[0]) * 1024

    @property
    def spent_s(self) -> float:
        """Processor seconds since the watch began."""
        return self.cpu_s - self._before_s

    async def keep_looking(self) -> None:
        """Until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(SAMPLE_S)


class Bench:
    """A pool of one child, and the files that it reads and writes."""

    def __init__(self, folder: Path) -> None:
        self._pool = SanitiserPool(UploadSettings(processes=1))
        self._source, self._output = folder / "source", folder / "output"

    async def measure(self, case: Case, warm: bytes) -> Cost:
        """Run one file through the child."""
        await self._sanitise(warm)
        pid = self._find_child()
        data = await asyncio.to_thread(case.make)
        watch = Watch(pid)
        watching = asyncio.create_task(watch.keep_looking())
        began = time.perf_counter()
        outcome = await self._sanitise(data)
        wall_s = time.perf_counter() - began
        watching.cancel()
        died = not psutil.pid_exists(pid)
        if not died:
            watch.look()
        return Cost(case, len(data), outcome, wall_s, watch.spent_s, watch.rss_bytes, died)

    async def close(self) -> None:
        """End the child."""
        await self._pool.close()

    async def _sanitise(self, data: bytes) -> str:
        self._source.write_bytes(data)
        self._output.write_bytes(b"")
        try:
            await self._pool.sanitise(self._source, self._output)
        except InvalidImage as refusal:
            return str(refusal)
        return "taken"

    def _find_child(self) -> int:
        children = psutil.Process(os.getpid()).children()
        [pid] = [child.pid for child in children if "umrgen_api.sanitiser" in child.cmdline()]
        return int(pid)


async def run(wanted: str) -> list[Cost]:
    """Measure every file whose name holds `wanted`, printing as it goes."""
    cases, costs = corpus(), []
    warm = next(case for case in cases if case.name == "a PNG of 64 px").make()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        print(f"{'file':58} {'bytes':>9} {'wall s':>6} {'cpu s':>6} {'MiB':>6}  outcome")
        for case in cases:
            if wanted in case.name:
                costs.append(await bench.measure(case, warm))
                print(costs[-1].row(), flush=True)
        await bench.close()
    return costs


def summarise(costs: list[Cost]) -> None:
    """The worst of each kind, and what was not as expected."""
    print()
    print(f"{len(costs)} files, {sum(cost.outcome == 'taken' for cost in costs)} taken")
    for fate in Fate:
        of_fate = [cost for cost in costs if cost.case.fate is fate]
        if of_fate:
            print(f"{fate}: {len(of_fate)}")
            print("  worst wall ", max(of_fate, key=lambda cost: cost.wall_s).row())
            print("  worst cpu  ", max(of_fate, key=lambda cost: cost.cpu_s).row())
            print("  worst RSS  ", max(of_fate, key=lambda cost: cost.rss_bytes).row())
    surprises = [cost for cost in costs if not cost.as_expected]
    print(f"unexpected: {len(surprises)}")
    for cost in surprises:
        print(" ", cost.row())


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="measure only the files whose name holds this")
    options = parser.parse_args()
    summarise(asyncio.run(run(options.only)))


if __name__ == "__main__":
    main()
