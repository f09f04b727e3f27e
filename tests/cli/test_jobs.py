"""The owner's hand on the jobs of every agent while the web tier serves."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tests.api.conftest import Server, StartServer, start_server  # noqa: F401 - a fixture
from tests.api.test_status import accept, claim, complete_next
from tests.cli.owner import Owner, owner  # noqa: F401 - a fixture
from umrgen_core.wakeup import Listener, Wakeup

HOSTILE = "canary \x1b]0;gone\x07 \u202ecircle"


@pytest.fixture
async def server(start_server: StartServer) -> Server:  # noqa: F811
    return await start_server(limits={"concurrent_jobs": 9})


async def state_of(server: Server, job_id: str) -> str:
    _, body, _ = await server.call("GET", f"/api/v1/status/{job_id}")
    state: str = body["state"]
    return state


async def test_jobs_are_listed_and_shown_without_their_prompts(server: Server, owner: Owner, tmp_path: Path) -> None:  # noqa: F811
    job_id = await accept(server, prompt=HOSTILE)
    await complete_next(server)
    listed, shown = await owner("jobs", "list"), await owner("jobs", "show", job_id)
    for word in (job_id, "development", "completed", "tiny-klein"):
        assert word in listed
        assert word in shown
    for word in ("canary", "\x1b"):
        assert word not in listed + shown + await owner("jobs", "show", job_id, "--json")
    path = json.loads(await owner("jobs", "show", job_id, "--json"))["output"]["path"]
    assert path in [str(file) for file in (tmp_path / "data" / "files" / "outputs").iterdir()]
    asked = await owner("jobs", "show", job_id, "--prompt")
    assert r"canary \x1b]0;gone\x07 \u202ecircle" in asked
    assert "\x1b" not in asked
    assert json.loads(await owner("jobs", "show", job_id, "--prompt", "--json"))["request"]["prompt"] == HOSTILE


async def test_a_list_is_narrowed_and_cut_for_scripts(server: Server, owner: Owner) -> None:  # noqa: F811
    first, second, third = [await accept(server) for _ in range(3)]
    await claim(server)
    told = json.loads(
        await owner("jobs", "list", "--state", "queued", "--agent", "development", "--limit", "1", "--json")
    )
    assert ([line["id"] for line in told["jobs"]], told["more"]) == ([third], True)
    told = json.loads(await owner("jobs", "list", "--state", "running", "--json"))
    assert [(line["id"], line["worker_id"]) for line in told["jobs"]] == [(first, "worker-1")]
    assert second not in await owner("jobs", "list", "--model", "other")


async def test_a_job_is_cancelled_and_submitted_again(server: Server, owner: Owner, tmp_path: Path) -> None:  # noqa: F811
    heard: list[str] = []
    worker = Wakeup(tmp_path / "data", Listener.INFER, "worker-1")
    try:
        worker.listen(heard.append)
        job_id = await accept(server)
        assert f"{job_id} is cancelled" in await owner("jobs", "cancel", job_id)
        assert await state_of(server, job_id) == "cancelled"
        again = json.loads(await owner("jobs", "retry", job_id, "--json"))["job_id"]
        assert await state_of(server, again) == "queued"
        assert await state_of(server, job_id) == "cancelled"
        async with asyncio.timeout(5):
            while heard.count("queued") < 2 or job_id not in heard:  # noqa: ASYNC110 - told from outside
                await asyncio.sleep(0.01)
    finally:
        worker.close()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("jobs", "show", "ext_1"), "no job 'ext_1'"),
        (("jobs", "list", "--agent", "nobody"), "no agent called 'nobody'"),
    ],
)
async def test_what_cannot_be_is_said_in_one_line(owner: Owner, arguments: tuple[str, ...], said: str) -> None:  # noqa: F811
    complaint = await owner(*arguments, status=1)
    assert said in complaint
    assert len(complaint.splitlines()) == 1
