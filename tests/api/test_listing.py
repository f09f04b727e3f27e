from __future__ import annotations

from typing import Any

import pytest

from tests.api.conftest import Server, StartServer
from tests.api.test_status import accept, claim, complete_next


@pytest.fixture
async def server(start_server: StartServer) -> Server:
    return await start_server(limits={"concurrent_jobs": 30, "rate_per_minute": 1000})


async def list_ids(server: Server, query: str = "") -> tuple[list[str], str | None]:
    status, body, _ = await server.call("GET", f"/api/v1/jobs{query}")
    assert status == 200
    return [job["job_id"] for job in body["jobs"]], body["next_cursor"]


async def test_jobs_are_listed_newest_first_with_their_whole_status(server: Server) -> None:
    assert await list_ids(server) == ([], None)
    ids = [await accept(server) for _ in range(3)]
    output = await complete_next(server)
    _, body, _ = await server.call("GET", "/api/v1/jobs")
    assert [job["job_id"] for job in body["jobs"]] == ids[::-1]
    for job in body["jobs"]:
        assert job == (await server.call("GET", f"/api/v1/status/{job['job_id']}"))[1]
    assert output.filename in body["jobs"][2]["image_url"]


async def test_pages_follow_each_other_without_a_gap_or_a_repeat(server: Server) -> None:
    ids = [await accept(server) for _ in range(7)]
    seen: list[str] = []
    query = "?limit=3"
    while True:
        page, cursor = await list_ids(server, query)
        seen += page
        assert await accept(server)  # what comes in meanwhile moves no page
        if cursor is None:
            break
        query = f"?limit=3&cursor={cursor}"
    assert seen == ids[::-1]


async def test_a_state_can_be_asked_for(server: Server) -> None:
    ids = [await accept(server) for _ in range(4)]
    await complete_next(server)
    await claim(server)
    await server.call("DELETE", f"/api/v1/jobs/{ids[3]}")
    for state, expected in (("completed", ids[0]), ("running", ids[1]), ("queued", ids[2]), ("cancelled", ids[3])):
        assert (await list_ids(server, f"?state={state}"))[0] == [expected]
    assert (await list_ids(server, "?state=failed"))[0] == []
    assert (await list_ids(server, "?state=queued&limit=1"))[1] is None


@pytest.mark.parametrize(
    ("query", "field", "nearest"),
    [
        ("?limit=0", "limit", 100),
        ("?limit=101", "limit", 100),
        ("?limit=x", "limit", 100),
        ("?limit=", "limit", 100),
        ("?limit=" + "9" * 5000, "limit", 100),
        ("?state=done", "state", None),
        ("?cursor=ext_none", "cursor", None),
        ("?cursor=", "cursor", None),
    ],
)
async def test_a_page_that_cannot_be_is_refused(server: Server, query: str, field: str, nearest: Any) -> None:
    status, body, _ = await server.call("GET", f"/api/v1/jobs{query}")
    assert status == 400
    assert (body["errors"][0]["field"], body["errors"][0].get("nearest")) == (field, nearest)


async def test_me_tells_limits_usage_and_current_jobs(server: Server) -> None:
    ids = [await accept(server) for _ in range(3)]
    output = await complete_next(server)
    await claim(server)
    status, body, _ = await server.call("GET", "/api/v1/me")
    assert status == 200
    assert (body["agent"], body["session_id"]) == ("development", "sid_ext_gen")
    assert body["scopes"] == ["generate", "read", "upload"]
    assert body["limits"]["concurrent_jobs"] == 30
    assert body["usage"] == {
        "references": 0,
        "reference_bytes": 0,
        "output_bytes": output.bytes,
        "concurrent_jobs": 2,
    }
    assert [(job["job_id"], job["state"]) for job in body["current_jobs"]] == [(ids[1], "running"), (ids[2], "queued")]


async def test_what_has_expired_is_not_listed_even_before_it_is_swept(server: Server, clock) -> None:
    await accept(server)
    await complete_next(server)
    assert len((await list_ids(server))[0]) == 1
    clock.wall += 8 * 86_400 * 1_000_000
    assert (await list_ids(server)) == ([], None)
    assert (await list_ids(server, "?state=completed")) == ([], None)
