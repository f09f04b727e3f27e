"""How the OpenAI API waits for its jobs: several pictures, limits, and waits that end early."""

from __future__ import annotations

import asyncio

import pytest

from tests.api.conftest import Server, StartServer
from tests.api.openai_requests import (
    DEADLINE_S,
    WIDE,
    begin,
    check_error,
    claim_soon,
    complete,
    end,
    list_jobs,
    wait_for_jobs,
)
from tests.api.test_status import complete_next
from tests.api.test_waiting import wait_for_waiters
from tests.conftest import DEVELOPMENT_KEY
from umrgen_api.openai import pictures


async def test_several_pictures_are_jobs_one_after_another_within_the_limit(server: Server) -> None:
    waiting = begin(server, n=3, seed=5)
    for place in (1, 2, 3):
        jobs = await wait_for_jobs(server, place)
        assert [job["state"] for job in jobs] == ["completed"] * (place - 1) + ["queued"]
        await complete(server, place)
    status, body, _ = await end(waiting)
    assert (status, len(body["data"])) == (200, 3)
    assert [job["seed"] for job in await list_jobs(server)] == [5, 6, 7]


async def test_several_pictures_are_queued_at_once_where_the_limit_allows(start_server: StartServer) -> None:
    server = await start_server(limits=WIDE)
    waiting = begin(server, n=3)
    jobs = await wait_for_jobs(server, 3)
    assert [job["state"] for job in jobs] == ["queued"] * 3
    for _ in range(3):
        await complete(server, 3)
    for job in jobs:
        server.services.changes.notify(job["job_id"])
    assert len((await end(waiting))[1]["data"]) == 3


async def test_a_picture_that_finds_the_agents_limit_taken_waits_for_room(server: Server) -> None:
    waiting = begin(server, n=2)
    (first,) = await wait_for_jobs(server, 1)
    await complete_next(server)
    _, other, _ = await server.generate()  # before the request has seen that its own has ended
    server.services.changes.notify(first["job_id"])
    await complete(server, 2)
    assert (await list_jobs(server))[1]["job_id"] == other["job_id"]
    await complete(server, 3)
    assert (await end(waiting))[0] == 200


async def test_without_room_for_the_first_the_limit_is_told(server: Server) -> None:
    await server.generate()
    answer = await end(begin(server, n=2))
    assert "your limit of 1 job" in check_error(answer, 429, "rate_limit_exceeded")
    assert int(answer[2]["Retry-After"]) >= 1
    assert len(await list_jobs(server)) == 1
    assert not server.services.changes._agents


async def test_every_picture_counts_against_the_rate(start_server: StartServer) -> None:
    server = await start_server(limits={**WIDE, "rate_per_minute": 4})
    check_error(await end(begin(server, n=5)), 429, "rate_limit_exceeded")
    assert await list_jobs(server) == []


async def test_a_client_that_hangs_up_cancels_nothing(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "LOOK_AGAIN_S", 0.05)
    waiting = begin(server, n=2)
    await wait_for_jobs(server, 1)
    await wait_for_waiters(server, 1)
    waiting.cancel()
    async with asyncio.timeout(DEADLINE_S):
        while server.services.changes._agents:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.005)
    (job,) = await list_jobs(server)
    assert job["state"] == "queued"
    await complete_next(server)
    assert len(await list_jobs(server)) == 1  # the second was never accepted


async def test_a_stopping_server_says_that_the_jobs_go_on(server: Server) -> None:
    waiting = begin(server)
    (job,) = await wait_for_jobs(server, 1)
    await wait_for_waiters(server, 1)
    server.services.changes.stop()
    answer = await end(waiting)
    assert job["job_id"] in check_error(answer, 503, "unavailable")
    assert answer[2]["X-Should-Retry"] == "false"


async def test_a_wait_that_is_over_names_the_jobs(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MAX_WAIT_S", 0.0)
    answer = await end(begin(server, headers={"Idempotency-Key": "a"}))
    (job,) = await list_jobs(server)
    assert f"/api/v1/status/{job['job_id']}" in check_error(answer, 504, "timeout")
    assert answer[2]["X-Should-Retry"] == "true"  # under its key a retry waits on


async def test_too_many_waiting_requests_are_refused_before_a_job_is_accepted(start_server: StartServer) -> None:
    server = await start_server(limits=WIDE)
    agent = await server.services.agents.find_by_key(DEVELOPMENT_KEY)
    assert agent is not None
    server.services.changes._agents[agent.id] = 50
    assert "50 requests" in check_error(await end(begin(server)), 429, "rate_limit_exceeded")
    assert await list_jobs(server) == []


class Calls:
    """Counts the calls of a method that is left as it is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> None:
        self.count = 0
        method = getattr(owner, name)

        def counted(*arguments: object) -> object:
            self.count += 1
            return method(*arguments)

        monkeypatch.setattr(owner, name, counted)

    async def reach(self, count: int) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while self.count < count:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.005)


async def test_progress_of_the_job_in_the_way_brings_no_other_try(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "FULL_S", DEADLINE_S * 2)
    checks = Calls(monkeypatch, pictures, "check_body")
    tries = Calls(monkeypatch, server.services.jobs, "enqueue")
    looks = Calls(monkeypatch, server.services.jobs, "find")
    waiting = begin(server, n=2, seed=5)
    (first,) = await wait_for_jobs(server, 1)
    await complete_next(server)
    _, other, _ = await server.generate()  # before the request has seen that its own has ended
    server.services.changes.notify(first["job_id"])
    claimed = await claim_soon(server)
    await tries.reach(4)  # its first, its second in vain, the other, and its second in vain again
    for step in (1, 2, 3):
        seen = looks.count
        await server.services.claims.put_progress(claimed, step)
        server.services.changes.notify(other["job_id"])
        await looks.reach(seen + 1)
    assert tries.count == 4
    await server.services.claims.fail(claimed, "model_error", "A sentence.", retryable=False)
    server.services.changes.notify(other["job_id"])
    await complete(server, 3)
    assert [one["seed"] for one in (await end(waiting))[1]["data"]] == [5, 6]
    assert (tries.count, checks.count) == (5, 1)


async def test_a_full_queue_is_tried_again_after_a_while_with_the_same_checked_order(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await start_server(limits={**WIDE, "queued_jobs": 1})
    monkeypatch.setattr(pictures, "FULL_S", 0.01)
    checks = Calls(monkeypatch, pictures, "check_body")
    tries = Calls(monkeypatch, server.services.jobs, "enqueue")
    waiting = begin(server, n=2)
    (first,) = await wait_for_jobs(server, 1)
    await complete_next(server)
    _, other, _ = await server.generate()
    server.services.changes.notify(first["job_id"])
    await tries.reach(6)
    await complete(server, 2)
    await complete(server, 3)
    data = (await end(waiting))[1]["data"]
    assert other["job_id"] not in [one["job_id"] for one in data]
    assert len({one["seed"] for one in data}) == 2
    assert checks.count == 1
