"""Clocks that jump: leases run on boot time, retention pauses, a reboot ends every lease. The real app and daemon."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog
from aiohttp import web
from PIL import Image

from tests.conftest import DEVELOPMENT_KEY, FakeClock, make_settings
from tests.faults.harness import read_rows
from tests.faults.table import record
from umrgen_api import upkeep
from umrgen_api.app import build_app
from umrgen_api.protocol import Runner
from umrgen_api.services import SERVICES, Services
from umrgen_core.config import Settings
from umrgen_core.database import open_database
from umrgen_infer.daemon import Daemon
from umrgen_infer.painter import Commission, OnStep, Painting

WAIT_S = 20.0
HOUR_S = 3600
DAY_S = 86_400
ROUNDS_S = 1.5
"""More than one round of recovery in either process."""


class PatientPainter:
    """Stops after its first step until it may go on."""

    def __init__(self) -> None:
        self.may_go_on = threading.Event()

    def close(self) -> None:
        pass

    def paint(self, commission: Commission, on_step: OnStep, *, lean: bool = False) -> Painting:
        on_step(1)
        self.may_go_on.wait(WAIT_S)
        on_step(2)
        picture = Image.new("RGB", (commission.width, commission.height), "red")
        return Painting(picture, {"encode": 0.0, "denoise": 0.0, "decode": 0.0})


class Web:
    """The web tier and an agent of it."""

    def __init__(self, services: Services, session: aiohttp.ClientSession, data_dir: Path) -> None:
        self.services = services
        self.session = session
        self.data_dir = data_dir

    async def submit(self) -> str:
        async with self.session.post(
            "/api/v1/generate", json={"prompt": "a star", "width": 64, "height": 64}
        ) as answer:
            assert answer.status == 202
            job_id: str = (await answer.json())["job_id"]
            return job_id

    async def status(self, job_id: str) -> dict[str, Any]:
        async with self.session.get(f"/api/v1/status/{job_id}") as answer:
            return {"http": answer.status, **await answer.json()}

    async def wait_for(self, job_id: str, state: str) -> dict[str, Any]:
        async with asyncio.timeout(WAIT_S):
            while (status := await self.status(job_id))["state"] != state:  # noqa: ASYNC110 - asked as an agent asks
                await asyncio.sleep(0.02)
            return status

    def row(self, job_id: str) -> dict[str, Any]:
        (row,) = read_rows(self.data_dir, f"SELECT * FROM jobs WHERE id = '{job_id}'")
        return row


@asynccontextmanager
async def serve_web(settings: Settings, clock: FakeClock) -> AsyncIterator[Web]:
    app = build_app(settings, clock)
    runner = Runner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        headers = {"Authorization": f"Bearer {DEVELOPMENT_KEY}"}
        async with aiohttp.ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}", headers=headers) as session:
            yield Web(app[SERVICES], session, settings.storage.data_dir)
    finally:
        await runner.cleanup()


@asynccontextmanager
async def serve_daemon(settings: Settings, clock: FakeClock, painter: PatientPainter) -> AsyncIterator[None]:
    async with open_database(settings, clock) as database:
        daemon = Daemon(settings, clock, database, lambda _: painter)
        task = asyncio.create_task(daemon.serve())
        try:
            yield
        finally:
            painter.may_go_on.set()
            daemon.stop()
            assert await asyncio.wait_for(task, WAIT_S) == 0


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    jobs = {"lease_s": 2, "heartbeat_s": 0.2, "queue_ttl_s": 600}
    return make_settings(tmp_path / "data", jobs=jobs, infer={"poll_s": 0.1}, limits={"concurrent_jobs": 10})


@pytest.fixture
def events(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[str], bool]]:
    """`events("retention_paused")`: whether it was logged."""
    structlog.configure(
        processors=[structlog.stdlib.render_to_log_kwargs],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    caplog.set_level(logging.INFO)
    yield lambda name: any(line.getMessage() == name for line in caplog.records)
    structlog.reset_defaults()


async def wait_until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not holds():  # noqa: ASYNC110 - what is watched is outside
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("leap_s", [HOUR_S, -HOUR_S])
async def test_a_leap_of_wall_time_during_a_lease_changes_nothing_about_it(
    settings: Settings, clock: FakeClock, leap_s: int
) -> None:
    painter = PatientPainter()
    async with serve_web(settings, clock) as tier, serve_daemon(settings, clock, painter):
        job_id, waiting = await tier.submit(), await tier.submit()
        await tier.wait_for(job_id, "running")
        before = tier.row(job_id)
        clock.wall += leap_s * 1_000_000
        await asyncio.sleep(ROUNDS_S)
        after = tier.row(job_id)
        for name in ("state", "attempts", "fence", "worker_id", "lease_boot_id", "lease_until_boot_ms"):
            assert after[name] == before[name], name
        assert tier.row(waiting)["state"] == "queued"
        painter.may_go_on.set()
        for one in (job_id, waiting):
            done = await tier.wait_for(one, "completed")
            assert done["attempts"] == 1
            assert min(done["timings"].values()) >= 0
    record(f"wall clock {leap_s / HOUR_S:+.0f} h during a lease", runs=1, points=1)


async def test_a_lease_runs_out_by_boot_time_alone(settings: Settings, clock: FakeClock) -> None:
    async with serve_web(settings, clock) as tier:
        job_id = await tier.submit()
        claim = await tier.services.claims.claim_next(settings.default_model, "a worker that dies")
        assert claim is not None
        clock.wall -= HOUR_S * 1_000_000
        clock.boot += int(settings.jobs.lease_s * 1000) + 1
        assert (await tier.wait_for(job_id, "queued"))["attempts"] == 1
        async with serve_daemon(settings, clock, painter := PatientPainter()):
            painter.may_go_on.set()
            assert (await tier.wait_for(job_id, "completed"))["attempts"] == 2


async def test_a_leap_pauses_retention_and_says_so_until_the_clock_is_right_again(
    settings: Settings, clock: FakeClock, events: Callable[[str], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "EXPIRY_INTERVAL_S", 0.05)
    painter = PatientPainter()
    painter.may_go_on.set()
    async with serve_web(settings, clock) as tier:
        async with serve_daemon(settings, clock, painter):
            job_id = await tier.submit()
            done = await tier.wait_for(job_id, "completed")
        clock.wall += 8 * DAY_S * 1_000_000
        await wait_until(lambda: events("retention_paused"))
        await asyncio.sleep(0.5)
        assert tier.row(job_id)["state"] == "completed"
        (output,) = read_rows(tier.data_dir, "SELECT disk_name FROM outputs")
        assert (tier.data_dir / "files" / "outputs" / output["disk_name"]).exists()
        assert not events("retention_resumed")
        clock.wall -= 8 * DAY_S * 1_000_000
        await wait_until(lambda: events("retention_resumed"))
        assert await tier.status(job_id) == done
        clock.advance(8 * DAY_S)
        await wait_until(lambda: read_rows(tier.data_dir, "SELECT id FROM jobs") == [])
        assert (await tier.status(job_id))["http"] == 404
    record("retention while wall time has leapt", runs=1, points=2)


async def test_after_a_reboot_running_jobs_wait_again_and_the_time_in_the_queue_starts_anew(
    settings: Settings, clock: FakeClock
) -> None:
    async with AsyncExitStack() as first:
        tier = await first.enter_async_context(serve_web(settings, clock))
        running, queued, cancelled = [await tier.submit() for _ in range(3)]
        claim = await tier.services.claims.claim_next(settings.default_model, "a worker without power")
        assert claim is not None
        other = await tier.services.claims.claim_next(settings.default_model, "a worker without power")
        assert (claim.job_id, other and other.job_id) == (running, queued)
        await tier.session.delete(f"/api/v1/jobs/{queued}")
        clock.boot += 590_000
    queued, cancelled = cancelled, queued
    clock.reboot()
    async with serve_web(settings, clock) as tier:
        assert (await tier.wait_for(running, "queued"))["attempts"] == 1
        await tier.wait_for(cancelled, "cancelled")
        for one in (running, queued):
            row = tier.row(one)
            assert (row["queue_boot_id"], row["queue_until_boot_ms"]) == (clock.boot_id, clock.boot + 600_000)
        clock.boot += 599_000
        await asyncio.sleep(ROUNDS_S)
        assert tier.row(queued)["state"] == "queued"
        async with serve_daemon(settings, clock, painter := PatientPainter()):
            painter.may_go_on.set()
            assert (await tier.wait_for(queued, "completed"))["attempts"] == 1
            assert (await tier.wait_for(running, "completed"))["attempts"] == 2
    record("reboot: running, queued and cancelled jobs", runs=1, points=3)
