from __future__ import annotations

import asyncio
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from dataclasses import replace
from fcntl import ioctl
from pathlib import Path

import pytest

from tests.cli.test_accounts import admin  # noqa: F401 - a fixture
from tests.conftest import ROOT, FakeClock, make_settings
from umrgen_cli.admin_top import Rates, open_watch
from umrgen_cli.figures import show_bytes, show_seconds, show_span, show_sparkline
from umrgen_cli.top_frame import View, build_frame, draw_bar
from umrgen_core.database import open_database
from umrgen_core.footprint import Footprint, Process
from umrgen_core.gpus import Gpu
from umrgen_core.jobs import JobState
from umrgen_core.overview import FinishedLine, Overview, QueueLine, RunningLine, Usage, WorkerLine
from umrgen_core.worker_store import WorkerState, WorkerStore

NOW_US = FakeClock().wall
JOB = RunningLine(
    id="ext_01234567-89ab",
    agent="alice",
    model="flux2-klein-4b",
    worker_id="1-a",
    step=2,
    steps=8,
    width=1024,
    height=768,
    attempts=1,
    started_at_us=NOW_US - 5_000_000,
    cancel_requested=False,
    lease_left_s=25.0,
)
WORKER = WorkerLine("1-a", 1, WorkerState.READY, ("flux2-klein-4b", "tiny-klein"), NOW_US, NOW_US, 2.0)
ENDED = FinishedLine(
    "ext_ended", "bob", "tiny-klein", JobState.FAILED, 512, 512, 4, 1.5, 2.5, NOW_US - 3_000_000, "out_of_memory"
)
GPU = Gpu(0, "GPU-1", "NVIDIA H200", 70_000_000_000, 140_000_000_000, 0.87, 61, 410.2)
VIEW = View(
    version="1.2.3",
    overview=Overview(
        at_us=NOW_US,
        paused_at_us=None,
        draining_at_us=None,
        workers=(WORKER,),
        running=(JOB,),
        queue=(QueueLine("tiny-klein", 12, 3, "ext_x", NOW_US - 90_000_000),),
        finished=(ENDED,) * 40,
        ended_per_minute=(0,) * 50 + (1, 2, 3, 4, 5, 6, 7, 8, 0, 4),
        usage=Usage(2, 1, 1_000, 2_000_000),
        webhooks_due=0,
        webhooks_failed=0,
    ),
    footprint=Footprint(1_500_000, 20_000, 50_000_000_000, 90_000_000_000, has_ballast=True),
    processes=[Process(1, "infer", NOW_US - 7_200_000_000), Process(2, "api", NOW_US - 60_000_000)],
    gpus=[GPU],
    disk_floor_bytes=1_000_000,
    silent_s=30.0,
    rates={JOB.id: 3.25},
)


def draw(width: int = 100, height: int = 30, view: View = VIEW, **changes: object) -> list[str]:
    overview = replace(view.overview, **changes)
    return build_frame(replace(view, overview=overview), width, height).plain.split("\n")


def test_a_frame_shows_the_service() -> None:
    text = "\n".join(draw())
    for shown in (
        "UMRGEN 1.2.3   web tier up 60 s   daemon up 2 h   queue open",
        "● 1-a  ready  flux2-klein-4b, tiny-klein",
        "2/8",
        "3.25/s",
        "queue: 12 waiting",
        "of 3 agents     the oldest for 90 s",
        "ended: 40 in an hour",
        "▁▂▃▄▅▆▇█ ▄",
        "3 s failed    ext_ended",
        "out_of_memory",
        "GPU 0 H200",
        "70 GB of 140 GB",
        "87%  61 °C  410 W",
        "disk 50 GB free   database 1.5 MB + 20 kB log   pictures 2 MB",
    ):
        assert shown in text, text


@pytest.mark.parametrize("size", [(80, 24), (60, 12), (200, 60), (20, 5), (80, 1)])
def test_a_frame_fits_its_terminal(size: tuple[int, int]) -> None:
    lines = draw(*size)
    assert len(lines) == size[1]
    assert max(map(len, lines)) <= size[0]


def test_all_that_matters_of_a_line_fits_into_80_columns() -> None:
    text = "\n".join(draw(80, 24))
    for end in (" UTC", "2/8   3.25/s", "out_of_memory", "the oldest for 90 s", "87%  61 °C  410 W", "pictures 2 MB"):
        assert re.search(f"{re.escape(end)}$", text, re.MULTILINE), end


def test_what_is_wrong_is_said() -> None:
    silent = replace(WORKER, age_s=100.0)
    assert "● 1-a  not heard from for 2 min" in draw(workers=(silent,))
    assert "● gone; its jobs go back to the queue" in draw(workers=())
    assert "none: start umrgen-infer" in draw(workers=(), running=())
    assert (
        "queue paused for 2 min, draining for 5 s"
        in draw(paused_at_us=NOW_US - 120_000_000, draining_at_us=NOW_US - 5_000_000)[0]
    )
    assert "daemon down" in draw(view=replace(VIEW, processes=[]))[0]
    assert "webhooks 3 to be sent, 2 given up" in draw(webhooks_due=3, webhooks_failed=2)
    assert any("cancelling" in line for line in draw(running=(replace(JOB, cancel_requested=True),)))
    assert any(line.endswith("try 2") for line in draw(running=(replace(JOB, attempts=2),)))
    assert "● 1-a  idle  flux2-klein-4b, tiny-klein" in draw(running=())


def test_a_rate_is_that_of_the_last_steps_and_outlives_a_look_without_one() -> None:
    rates = Rates()
    assert rates.update([JOB], 10.0) == {}
    assert rates.update([replace(JOB, step=4)], 11.0) == {JOB.id: 2.0}
    assert rates.update([replace(JOB, step=4)], 12.0) == {JOB.id: 2.0}
    assert rates.update([replace(JOB, step=5)], 13.0) == {JOB.id: 0.5}
    assert rates.update([replace(JOB, step=1)], 14.0) == {JOB.id: 0.5}  # begun anew by another worker
    assert rates.update([replace(JOB, step=3)], 15.0) == {JOB.id: 2.0}
    assert rates.update([], 16.0) == {}


def test_figures_are_those_that_people_write() -> None:
    assert [show_bytes(n) for n in (0, 999, 1_500, 16_500_000, 5e12)] == [
        "0 bytes",
        "999 bytes",
        "1.5 kB",
        "16.5 MB",
        "5 TB",
    ]
    assert [show_span(s) for s in (0, 45, 720, 12_000, 7_200, 400_000)] == [
        "0 s",
        "45 s",
        "12 min",
        "3 h 20 min",
        "2 h",
        "4 days",
    ]
    assert [show_seconds(s) for s in (0.004, 0.42, 12.34, 180)] == ["4 ms", "0.42 s", "12.3 s", "3 min"]
    assert show_sparkline([0, 1, 8]) == " ▁█"
    assert show_sparkline([]) == ""
    assert draw_bar(0.5, 4, "").plain == "━━──"
    assert draw_bar(7.0, 4, "").plain == "━━━━"


def test_once_prints_one_frame_without_colours(admin, tmp_path: Path) -> None:  # noqa: F811
    printed = admin("top", "--once")
    assert "none: start umrgen-infer" in printed
    assert "\x1b" not in printed
    assert "there is no store" not in printed


def test_without_a_store_it_says_so_and_makes_none(tmp_path: Path) -> None:
    settings = make_settings(tmp_path / "data")
    settings.storage.database.unlink()

    async def look() -> None:
        async with open_watch(settings):
            pass

    with pytest.raises(Exception, match="there is no store"):
        asyncio.run(look())
    assert not settings.storage.database.exists()


async def test_a_look_reads_the_store_the_disk_and_the_processes(tmp_path: Path) -> None:
    settings, clock = make_settings(tmp_path / "data"), FakeClock()
    async with open_database(settings, clock) as database:
        await WorkerStore(database).announce("w1", 1, WorkerState.LOADING, ["tiny-klein"])
        async with open_watch(settings) as watch:
            view = await watch.look()
    assert [worker.id for worker in view.overview.workers] == ["w1"]
    assert [process.pid for process in view.processes] == [os.getpid()]
    assert view.footprint.database_bytes > 0


class Screen:
    """A terminal of its own for one command."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.own, other = pty.openpty()
        self.resize(24, 80)
        self.process = subprocess.Popen(command, stdin=other, stdout=other, stderr=other, env=environment)
        os.close(other)
        self.text = ""

    def resize(self, rows: int, columns: int) -> None:
        ioctl(self.own, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def wait_for(self, wanted: str, timeout_s: float = 30.0) -> None:
        deadline = time.monotonic() + timeout_s
        while wanted not in self.text:
            assert time.monotonic() < deadline, self.text[-2000:]
            if select.select([self.own], [], [], 0.1)[0]:
                self.text += os.read(self.own, 65_536).decode("utf-8", "replace")


def test_on_a_terminal_it_draws_again_and_again_follows_its_size_and_leaves_it_as_it_was(tmp_path: Path) -> None:
    make_settings(tmp_path / "data")
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
    environment |= {"UMRGEN_STORAGE__DATA_DIR": str(tmp_path / "data"), "TERM": "xterm-256color"}
    command = [
        sys.executable,
        "-m",
        "umrgen_cli.admin",
        "top",
        "--interval",
        "0.1",
        "--config",
        str(ROOT / "config.toml"),
    ]
    screen = Screen(command, environment)
    try:
        screen.wait_for("\x1b[?1049h")  # the terminal's other screen
        screen.wait_for("─" * 60)
        screen.resize(30, 120)
        screen.wait_for("─" * 110)
        screen.process.send_signal(signal.SIGINT)
        screen.wait_for("\x1b[?1049l")
        assert screen.process.wait(10) == 0
        assert "Traceback" not in screen.text
    finally:
        screen.process.kill()
        screen.process.wait()
        os.close(screen.own)
