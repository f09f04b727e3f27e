"""The owner holds the queue while the web tier serves."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.api.conftest import Server, StartServer, start_server  # noqa: F401 - a fixture
from tests.api.test_status import accept, claim, complete_next
from tests.cli.owner import Owner, owner  # noqa: F401 - a fixture
from tests.conftest import ROOT, make_settings
from umrgen_core.queue_control import QueueControl
from umrgen_core.wakeup import Listener, Wakeup
from umrgen_core.worker_store import WorkerState

BODY = {"prompt": "a red circle"}


@pytest.fixture
async def server(start_server: StartServer) -> Server:  # noqa: F811
    """A web tier whose worker is ready."""
    server = await start_server(limits={"concurrent_jobs": 9})
    await server.services.workers.announce("worker-1", 1, WorkerState.READY, ["tiny-klein"])
    return server


async def readiness(server: Server) -> tuple[int, Any]:
    status, body, _ = await server.call("GET", "/readyz")
    return status, body


async def test_a_draining_queue_is_told_to_agents_and_to_load_balancers(server: Server, owner: Owner) -> None:  # noqa: F811
    headers = {"Idempotency-Key": "k1"}
    first = await server.call("POST", "/api/v1/generate", json=BODY, headers=headers)
    assert "nothing new is accepted" in await owner("queue", "drain")
    status, body, answered = await server.call("POST", "/api/v1/generate", json=BODY)
    assert (status, body["code"], body["retry_after"], answered["Retry-After"]) == (503, "unavailable", 30, "30")
    replayed = await server.call("POST", "/api/v1/generate", json=BODY, headers=headers)
    assert (replayed[0], replayed[1]) == (202, first[1])
    status, body = await readiness(server)
    assert (status, body["reasons"][0].partition(":")[0]) == (503, "draining")
    assert (await server.call("GET", "/healthz"))[0] == 200
    assert "the queue is open" in await owner("queue", "resume")
    assert (await readiness(server)) == (200, {"success": True, "status": "ready", "reasons": []})
    assert (await server.call("POST", "/api/v1/generate", json=BODY))[0] == 202


async def test_a_paused_queue_accepts_and_says_when_nobody_knows(server: Server, owner: Owner) -> None:  # noqa: F811
    await accept(server)
    await complete_next(server)
    await owner("queue", "pause")
    job_id = await accept(server)
    _, body, _ = await server.call("GET", f"/api/v1/status/{job_id}")
    assert (body["state"], body["queue_position"], body["eta_seconds"]) == ("queued", 1, None)
    status, body = await readiness(server)
    assert (status, body["paused"]) == (200, True)
    told = json.loads(await owner("queue", "status", "--json"))
    assert told["paused_at"] is not None
    assert (told["draining_at"], told["queued"]) == (None, 1)
    assert [(line["agent"], line["jobs"], line["oldest_id"]) for line in told["agents"]] == [("development", 1, job_id)]
    refused = await owner("queue", "drain", "--wait", "--timeout-s", "0", status=1)
    assert "would never run empty" in refused
    assert json.loads(await owner("queue", "status", "--json"))["draining_at"] is None


async def test_waiting_ends_with_the_last_run_and_says_how_far_it_is(server: Server, owner: Owner) -> None:  # noqa: F811
    running, queued = await accept(server), await accept(server)
    claimed = await claim(server)
    assert f"{running} step 0/" in await owner("queue", "drain", "--wait", "--timeout-s", "0", status=1)
    shown = await owner("queue", "status")
    for word in ("drains since", running, queued, "worker-1", "tiny-klein", "development"):
        assert word in shown
    waiting = asyncio.create_task(owner("queue", "pause", "--wait", "--timeout-s", "30"))
    async with asyncio.timeout(20):
        while not (await QueueControl(server.services.database).read()).paused:  # noqa: ASYNC110 - told from outside
            await asyncio.sleep(0.01)
    await server.services.claims.give_back(claimed)
    assert "nothing runs any more" in await waiting


async def test_a_drain_that_is_paused_meanwhile_says_so(server: Server, owner: Owner) -> None:  # noqa: F811
    await accept(server)
    control = QueueControl(server.services.database)
    waiting = asyncio.create_task(owner("queue", "drain", "--wait", "--timeout-s", "1", status=1))
    async with asyncio.timeout(20):
        while not (await control.read()).draining:  # noqa: ASYNC110 - told from outside
            await asyncio.sleep(0.01)
    await control.pause()
    assert "1 job waiting, 0 running; paused meanwhile, so what waits is not run" in await waiting


def start_admin(data_dir: Path, *arguments: str) -> subprocess.Popen[str]:
    """A process of its own."""
    command = [sys.executable, "-m", "umrgen_cli.admin", *arguments, "--config", str(ROOT / "config.toml")]
    environment = {**os.environ, "UMRGEN_STORAGE__DATA_DIR": str(data_dir), "UMRGEN_STORAGE__BALLAST_BYTES": "0"}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment)


async def test_ctrl_c_ends_the_waiting_and_leaves_the_queue_as_it_was_put(server: Server, tmp_path: Path) -> None:
    await accept(server)
    with start_admin(tmp_path / "data", "queue", "drain", "--wait") as process:
        assert process.stderr is not None
        await asyncio.to_thread(process.stderr.readline)  # it waits
        process.send_signal(signal.SIGINT)
        said, complained = await asyncio.to_thread(process.communicate, timeout=20)
    assert (process.returncode, complained) == (130, "")
    assert "drains since" in said
    assert (await QueueControl(server.services.database).read()).draining


def test_an_unclean_stop_is_told_beside_the_answer_and_not_in_it(tmp_path: Path) -> None:
    make_settings(tmp_path / "data")
    (tmp_path / "data" / "run").mkdir()
    (tmp_path / "data" / "run" / "99-dead.open").touch()
    with start_admin(tmp_path / "data", "queue", "status", "--json") as process:
        said, complained = process.communicate(timeout=60)
    assert json.loads(said)["queued"] == 0
    assert json.loads(complained.splitlines()[0])["event"] == "unclean_stop_found"
    assert "the database is checked first" in complained.splitlines()[1]
    assert len(complained.splitlines()) == 2


async def test_where_there_is_no_store_none_is_made(owner: Owner, tmp_path: Path) -> None:  # noqa: F811
    """As with the wrong --config."""
    shutil.rmtree(tmp_path / "data")
    assert "there is no store" in await owner("queue", "status", status=1)
    assert "there is no store" in await owner("gc", "--dry-run", status=1)
    assert not (tmp_path / "data").exists()


async def test_resuming_wakes_the_workers_at_once(server: Server, owner: Owner, tmp_path: Path) -> None:  # noqa: F811
    woken = asyncio.Event()
    worker = Wakeup(tmp_path / "data", Listener.INFER, "worker-1")
    try:
        worker.listen(lambda _: woken.set())
        await owner("queue", "pause")
        assert not woken.is_set()
        await owner("queue", "resume")
        async with asyncio.timeout(5):
            await woken.wait()
    finally:
        worker.close()
