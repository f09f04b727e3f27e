from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import aiohttp
import pytest

from tests.api.conftest import Server, StartServer
from tests.api.test_status import accept, claim, complete_next
from umrgen_api import changes
from umrgen_api.routes import status
from umrgen_core.errors import RateLimit

DEADLINE_S = 10.0


async def wait_for_waiters(server: Server, most: int) -> None:
    """Until so many requests wait."""
    async with asyncio.timeout(DEADLINE_S):
        while sum(server.services.changes._agents.values()) < most:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.001)


def ask(server: Server, job_id: str, query: str, **arguments: Any) -> asyncio.Task[tuple[int, Any, dict[str, str]]]:
    return asyncio.create_task(server.call("GET", f"/api/v1/status/{job_id}{query}", **arguments))


async def answer(task: asyncio.Task[tuple[int, Any, dict[str, str]]]) -> tuple[int, Any, dict[str, str]]:
    return await asyncio.wait_for(task, DEADLINE_S)


async def test_a_waiter_is_answered_when_the_state_changes(server: Server) -> None:
    job_id = await accept(server)
    waiting = ask(server, job_id, "?wait=30")
    await wait_for_waiters(server, 1)
    await claim(server)
    server.services.changes.notify(job_id)
    assert (await answer(waiting))[1]["state"] == "running"


async def test_a_waiter_until_done_is_answered_at_the_end_alone(server: Server) -> None:
    job_id = await accept(server)
    waiting = ask(server, job_id, "?wait=30&until=done")
    await wait_for_waiters(server, 1)
    output = asyncio.create_task(complete_next(server))
    await output
    server.services.changes.notify(job_id)
    assert (await answer(waiting))[1]["state"] == "completed"


async def test_a_change_that_no_hint_tells_of_is_found_by_the_slow_look(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "LOOK_AGAIN_S", 60.0)  # the waiter itself looks no more within the deadline
    job_id = await accept(server)
    waiting = ask(server, job_id, "?wait=30")
    await wait_for_waiters(server, 1)
    await claim(server)  # nobody notifies: the datagram was lost
    assert (await answer(waiting))[1]["state"] == "running"


async def test_a_change_between_the_request_and_its_registration_is_not_missed(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await accept(server)
    watch = changes.Changes.watch

    @contextlib.contextmanager
    def late(self: changes.Changes, agent_id: int, watched: str):
        asyncio.get_running_loop().create_task(claim(server))
        with watch(self, agent_id, watched) as mine:
            yield mine

    monkeypatch.setattr(changes.Changes, "watch", late)
    assert (await answer(ask(server, job_id, "?wait=30")))[1]["state"] == "running"


async def test_a_wait_that_is_over_answers_with_things_as_they_stand(server: Server) -> None:
    job_id = await accept(server)
    status, body, _ = await answer(ask(server, job_id, "?wait=0.05"))
    assert (status, body["state"]) == (200, "queued")
    assert not server.services.changes._watches
    assert not server.services.changes._agents


@pytest.mark.parametrize("query", ["", "?wait=0", "?until=done"])
async def test_without_a_wait_the_answer_is_at_once(server: Server, query: str) -> None:
    assert (await asyncio.wait_for(ask(server, await accept(server), query), 1))[1]["state"] == "queued"


async def test_an_ended_or_unknown_job_is_not_waited_for(server: Server) -> None:
    job_id = await accept(server)
    await complete_next(server)
    assert (await asyncio.wait_for(ask(server, job_id, "?wait=60&until=done"), 2))[1]["state"] == "completed"
    assert (await asyncio.wait_for(ask(server, "ext_none", "?wait=60"), 2))[0] == 404


@pytest.mark.parametrize(
    ("query", "field", "nearest"),
    [
        ("?wait=61", "wait", 60),
        ("?wait=-1", "wait", 60),
        ("?wait=soon", "wait", 60),
        ("?wait=", "wait", 60),
        ("?wait=1e1", "wait", 60),
        ("?wait=nan", "wait", 60),
        ("?until=running", "until", "done"),
    ],
)
async def test_a_wait_that_cannot_be_meant_is_refused(server: Server, query: str, field: str, nearest: object) -> None:
    status, body, _ = await server.call("GET", f"/api/v1/status/{await accept(server)}{query}")
    assert status == 400
    assert (body["errors"][0]["field"], body["errors"][0]["nearest"]) == (field, nearest)


@pytest.mark.parametrize("prefer", ["wait=30", "respond-async, wait=30", 'wait="30"', "WAIT = 30 ; x=1"])
async def test_prefer_means_the_same_and_is_acknowledged(server: Server, prefer: str) -> None:
    job_id = await accept(server)
    waiting = ask(server, job_id, "", headers={"Prefer": prefer})
    await wait_for_waiters(server, 1)
    await claim(server)
    server.services.changes.notify(job_id)
    _, body, headers = await answer(waiting)
    assert (body["state"], headers["Preference-Applied"]) == ("running", "wait=30")


@pytest.mark.parametrize("prefer", ["", "wait=x", "waiting=30", "handling=lenient", "wait=-1"])
async def test_a_preference_that_is_not_understood_is_ignored(server: Server, prefer: str) -> None:
    waiting = ask(server, await accept(server), "", headers={"Prefer": prefer})
    status, _, headers = await asyncio.wait_for(waiting, 1)
    assert (status, "Preference-Applied" in headers) == (200, False)


async def test_a_job_that_is_erased_meanwhile_is_gone(server: Server) -> None:
    job_id = await accept(server)
    waiting = ask(server, job_id, "?wait=30&until=done")
    await wait_for_waiters(server, 1)
    await server.call("DELETE", f"/api/v1/jobs/{job_id}?erase=true")
    status, body, _ = await answer(waiting)
    assert status == 404 or body["state"] == "cancelled"  # erasing cancels first: it may hear of either


async def test_more_than_fifty_waiting_requests_of_one_agent_are_refused(server: Server) -> None:
    job_id = await accept(server)
    async with aiohttp.ClientSession(
        server.url, headers=server.session.headers, connector=aiohttp.TCPConnector(limit=0)
    ) as crowd:
        path = f"/api/v1/status/{job_id}?wait=30&until=done"
        waiting = [asyncio.create_task(crowd.get(path)) for _ in range(changes.MAX_WAITERS)]
        await wait_for_waiters(server, changes.MAX_WAITERS)
        status, body, headers = await server.call("GET", path)
        assert (status, body["code"], body["kind"], body["limit"]) == (429, "rate_limit", "waiting", 50)
        assert int(headers["Retry-After"]) >= 1
        assert (await server.call("GET", f"/api/v1/status/{job_id}"))[0] == 200  # one that does not wait
        await complete_next(server)
        server.services.changes.notify(job_id)
        responses = await asyncio.wait_for(asyncio.gather(*waiting), DEADLINE_S)
        assert {(await response.json())["state"] for response in responses} == {"completed"}
    assert not server.services.changes._agents


async def test_the_limit_is_the_agents_and_others_still_wait() -> None:
    board = changes.Changes(None)
    with contextlib.ExitStack() as stack:
        for _ in range(changes.MAX_WAITERS):
            stack.enter_context(board.watch(1, "ext_1"))
        with pytest.raises(RateLimit):
            stack.enter_context(board.watch(1, "ext_2"))
        stack.enter_context(board.watch(2, "ext_1"))
    assert not board._agents
    assert not board._watches


async def test_a_stopping_server_answers_those_who_wait(server: Server) -> None:
    job_id = await accept(server)
    waiting = ask(server, job_id, "?wait=60&until=done")
    await wait_for_waiters(server, 1)
    server.services.changes.stop()
    status, body, _ = await asyncio.wait_for(waiting, 2)
    assert (status, body["state"]) == (200, "queued")


async def test_a_client_that_hangs_up_cancels_nothing(server: Server) -> None:
    job_id = await accept(server)
    waiting = ask(server, job_id, "?wait=30&until=done")
    await wait_for_waiters(server, 1)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await complete_next(server)
    assert (await server.call("GET", f"/api/v1/status/{job_id}"))[1]["state"] == "completed"


async def test_a_status_that_has_not_changed_is_not_sent_again(server: Server) -> None:
    job_id = await accept(server)
    await complete_next(server)
    path = f"/api/v1/status/{job_id}"
    _, _, headers = await server.call("GET", path)
    etag = headers["Etag"]
    for condition in (etag, f'W/{etag}, "other"', "*"):
        async with server.session.get(path, headers={"If-None-Match": condition}) as response:
            assert (response.status, await response.read(), response.headers["ETag"]) == (304, b"", etag)
    assert (await server.call("GET", path, headers={"If-None-Match": '"other"'}))[0] == 200


async def test_another_state_has_another_etag(server: Server) -> None:
    job_id = await accept(server)
    path = f"/api/v1/status/{job_id}"
    first = (await server.call("GET", path))[2]["Etag"]
    await claim(server)
    status, _, headers = await server.call("GET", path, headers={"If-None-Match": first})
    assert status == 200
    assert headers["Etag"] != first


async def test_hundreds_of_waiters_of_many_jobs_are_each_told_of_their_own(start_server: StartServer) -> None:
    server = await start_server(limits={"concurrent_jobs": 20, "rate_per_minute": 1000, "reads_per_minute": 10_000})
    jobs = [await accept(server) for _ in range(20)]
    waiting = [ask(server, job_id, "?wait=30") for job_id in jobs for _ in range(2)]
    await wait_for_waiters(server, 40)
    claimed = [(await claim(server)).job_id for _ in jobs[:10]]
    for job_id in claimed:
        server.services.changes.notify(job_id)
    answers = await asyncio.wait_for(
        asyncio.gather(*(t for t, j in zip(waiting, [j for j in jobs for _ in range(2)], strict=True) if j in claimed)),
        DEADLINE_S,
    )
    assert {body["state"] for _, body, _ in answers} == {"running"}
    server.services.changes.stop()
    await asyncio.gather(*waiting)
