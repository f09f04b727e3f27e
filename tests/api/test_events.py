from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tests.api.conftest import Server
from tests.api.test_status import accept, claim, complete_next
from tests.api.test_waiting import DEADLINE_S, wait_for_waiters
from tests.conftest import DEVELOPMENT_KEY
from umrgen_api.routes import events


async def read_events(response: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    """Events as a client parses them; a comment is {"comment": …}."""
    fields: dict[str, Any] = {}
    async for line in response.content:
        text = line.decode().rstrip("\n")
        if not text:
            if fields:
                yield fields
            fields = {}
        elif text.startswith(":"):
            fields["comment"] = text[1:]
        else:
            name, _, value = text.partition(": ")
            fields[name] = json.loads(value) if name == "data" else value


async def next_event(stream: AsyncIterator[dict[str, Any]]) -> dict[str, Any]:
    return await asyncio.wait_for(anext(stream), DEADLINE_S)


async def test_a_stream_tells_every_state_and_ends_with_the_job(server: Server) -> None:
    job_id = await accept(server)
    async with server.session.get(f"/api/v1/events/{job_id}") as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        assert response.headers["Cache-Control"] == "no-store"
        stream = read_events(response)
        first = await next_event(stream)
        assert (first["event"], first["data"]["state"]) == ("state", "queued")
        claimed = await claim(server)
        server.services.changes.notify(job_id)
        second = await next_event(stream)
        assert (second["event"], second["data"]["state"]) == ("state", "running")
        await server.services.claims.put_progress(claimed, 2)
        server.services.changes.notify(job_id)
        third = await next_event(stream)
        assert (third["event"], third["data"]["progress"]["step"]) == ("progress", 2)
        await server.services.claims.fail(claimed, "model_error", "no", retryable=False)
        server.services.changes.notify(job_id)
        last = await next_event(stream)
        assert (last["event"], last["data"]["state"]) == ("done", "failed")
        ids = [int(event["id"]) for event in (first, second, third, last)]
        assert ids == sorted(set(ids))
        with pytest.raises(StopAsyncIteration):
            await next_event(stream)
    assert not server.services.changes._agents


async def test_a_stream_is_resumed_behind_the_last_event_that_was_seen(server: Server) -> None:
    job_id = await accept(server)
    path = f"/api/v1/events/{job_id}"
    async with server.session.get(path) as response:
        seen = (await next_event(read_events(response)))["id"]
    async with server.session.get(path, headers={"Last-Event-ID": seen}) as response:
        stream = read_events(response)
        coming = asyncio.create_task(next_event(stream))
        await wait_for_waiters(server, 1)
        await complete_next(server)
        server.services.changes.notify(job_id)
        event = await coming
        assert (event["event"], event["data"]["state"]) == ("done", "completed")
        assert int(event["id"]) > int(seen)
    async with server.session.get(path, headers={"Last-Event-ID": event["id"]}) as response:
        assert (response.status, await response.read()) == (204, b"")


async def test_the_whole_of_an_ended_job_is_one_event(server: Server) -> None:
    job_id = await accept(server)
    await complete_next(server)
    async with server.session.get(f"/api/v1/events/{job_id}") as response:
        heard = [event async for event in read_events(response)]
    assert [event["event"] for event in heard] == ["done"]
    assert heard[0]["data"]["image_url"]


@pytest.mark.parametrize("last", ["", "x", "-1", "9" * 30, "1.5"])
async def test_an_id_that_is_none_of_ours_begins_anew(server: Server, last: str) -> None:
    job_id = await accept(server)
    async with server.session.get(f"/api/v1/events/{job_id}", headers={"Last-Event-ID": last}) as response:
        assert (await next_event(read_events(response)))["data"]["state"] == "queued"


async def test_a_quiet_stream_sends_comments(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "COMMENT_S", 0.05)
    async with server.session.get(f"/api/v1/events/{await accept(server)}") as response:
        stream = read_events(response)
        await next_event(stream)
        assert "comment" in await next_event(stream)


async def test_anothers_or_no_job_has_no_stream(server: Server) -> None:
    assert (await server.call("GET", "/api/v1/events/ext_none"))[0] == 404


async def test_a_stopping_server_ends_its_streams(server: Server) -> None:
    async with server.session.get(f"/api/v1/events/{await accept(server)}") as response:
        stream = read_events(response)
        await next_event(stream)
        server.services.changes.stop()
        with pytest.raises(StopAsyncIteration):
            await next_event(stream)


async def test_a_job_that_is_erased_ends_its_stream(server: Server) -> None:
    job_id = await accept(server)
    async with server.session.get(f"/api/v1/events/{job_id}") as response:
        stream = read_events(response)
        await next_event(stream)
        await server.call("DELETE", f"/api/v1/jobs/{job_id}?erase=true")
        async with asyncio.timeout(DEADLINE_S):
            assert [event["event"] async for event in stream] in ([], ["done"])
    assert (await server.services.database.reader.one("SELECT count(*) AS n FROM events"))["n"] == 0


async def test_a_job_that_ends_while_its_stream_begins_is_told_of_as_ended(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await accept(server)
    find_last = events._find_last

    async def find_late(services, watched):
        last = await find_last(services, watched)
        if (await services.jobs.find(await owner(server), job_id)).state.value == "queued":
            await complete_next(server)
        return last

    monkeypatch.setattr(events, "_find_last", find_late)
    async with server.session.get(f"/api/v1/events/{job_id}") as response:
        heard = [event async for event in read_events(response)]
    assert [(event["event"], event["data"]["state"]) for event in heard][-1] == ("done", "completed")
    assert all(event["data"]["state"] == "completed" for event in heard if event["event"] == "done")


async def owner(server: Server):
    return await server.services.agents.find_by_key(DEVELOPMENT_KEY)


async def test_a_stream_has_no_head(server: Server) -> None:
    async with server.session.head(f"/api/v1/events/{await accept(server)}") as response:
        assert response.status == 405
