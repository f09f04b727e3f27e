"""What systemd would hear of a daemon: see test_overlap.py for the threads that the signs of life come from."""

from __future__ import annotations

import asyncio
import socket
import threading
from pathlib import Path

import pytest

from tests.conftest import make_settings
from tests.infer.conftest import WAIT_S, FakePainter, is_running
from umrgen_core.jobs import JobState
from umrgen_core.supervision import Work
from umrgen_core.systemd import Notifier
from umrgen_core.worker_store import WorkerState
from umrgen_infer.__main__ import Loader, describe
from umrgen_infer.painter import Commission, OnStep, Painting


class HungPainter(FakePainter):
    """Does one step, and then nothing until it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.release = threading.Event()

    def paint(self, commission: Commission, on_step: OnStep, *, lean: bool = False) -> Painting:
        on_step(1)
        self.release.wait(WAIT_S)
        return super().paint(commission, on_step, lean=lean)


async def test_a_hung_pipeline_gives_no_sign_of_life_however_busy_the_event_loop_is(
    start_daemon, make_agent, submit, wait_for, tmp_path: Path
):
    beaten, painter = threading.Event(), HungPainter()
    settings = make_settings(tmp_path / "data", infer={"poll_s": 0.02}, jobs={"heartbeat_s": 0.05})
    daemon, _ = await start_daemon(settings, lambda _: painter, beat=beaten.set)
    agent = await make_agent("alice", concurrent_jobs=2)
    job = await wait_for(agent, (await submit(agent)).id, lambda job: is_running(job) and job.step == 1)
    await submit(agent)
    loader = Loader(settings, Notifier())
    assert describe(daemon, loader, Work(1, 12)) == f"running {job.id}, step 1/4, queue 12"
    loader.loading = "flux"
    assert describe(daemon, loader, Work(1, 0)) == f"running {job.id}, step 1/4, loading flux, queue empty"
    beaten.clear()
    assert not await asyncio.to_thread(beaten.wait, 0.5)  # the idle loop would have given 25
    painter.release.set()
    assert (await wait_for(agent, job.id)).state is JobState.COMPLETED
    assert await asyncio.to_thread(beaten.wait, WAIT_S)


def test_while_a_model_is_loaded_for_a_job_systemd_waits_as_long_as_the_jobs_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "notify"))
        notifier = Notifier(str(tmp_path / "notify"), 300.0)
        notifier.ready()
        monkeypatch.setattr(
            "umrgen_infer.__main__.load_painter", lambda *_: said.extend(heard.recv(99).decode() for _ in range(2))
        )
        Loader(make_settings(tmp_path / "data", jobs={"deadline_s": 700}), notifier).load("tiny-klein")
    assert said == ["READY=1", "WATCHDOG_USEC=700000000\nWATCHDOG=1"]


async def test_ready_is_told_when_the_model_is_loaded_and_stopping_when_the_end_begins(start_daemon, painter):
    loading, told = threading.Event(), []

    def load(_: str) -> FakePainter:
        loading.wait(WAIT_S)
        return painter

    daemon, serving = await start_daemon(load=load, tell_state=told.append)
    assert (daemon.describe(), told) == ("loading tiny-klein", [])
    loading.set()
    async with asyncio.timeout(WAIT_S):
        while not told:  # noqa: ASYNC110 - it is told in between
            await asyncio.sleep(0.01)
    assert (daemon.describe(), told) == ("idle", [WorkerState.READY])
    daemon.stop()
    await asyncio.wait_for(serving, WAIT_S)
    assert (daemon.describe(), told) == ("stopping", [WorkerState.READY, WorkerState.STOPPING])
