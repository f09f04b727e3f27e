from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.api.conftest import Server, StartServer

BODY = {"prompt": "a star", "width": 128}


async def post(server: Server, key: str, body: Any = BODY) -> tuple[int, Any, dict[str, str]]:
    headers = {"Idempotency-Key": key, "Content-Type": "application/json"}
    content = body if isinstance(body, str) else json.dumps(body)
    return await server.call("POST", "/api/v1/generate", data=content, headers=headers)


async def count_jobs(server: Server) -> int:
    row = await server.services.database.reader.one("SELECT count(*) AS n FROM jobs")
    return row["n"]


async def test_the_same_key_and_body_get_the_first_answer_again(server: Server) -> None:
    first = await post(server, "k-1")
    again = await post(server, "k-1")
    assert (first[0], again[0], again[1]) == (202, 202, first[1])
    assert "Idempotent-Replayed" not in first[2]
    assert again[2]["Idempotent-Replayed"] == "true"
    assert again[2]["Location"] == first[2]["Location"]
    assert await count_jobs(server) == 1


async def test_the_same_body_is_the_same_json_in_any_order_and_spacing(server: Server) -> None:
    await post(server, "k-1", '{"prompt": "a star", "width": 128}')
    status, _, headers = await post(server, "k-1", '{ "width":128,"prompt":"a star"}')
    assert (status, headers.get("Idempotent-Replayed")) == (202, "true")


async def test_another_body_under_the_same_key_is_a_conflict(server: Server) -> None:
    await post(server, "k-1")
    status, body, _ = await post(server, "k-1", {"prompt": "a ring"})
    assert (status, body["error"], body["code"]) == (409, "Idempotency conflict", "idempotency_conflict")


async def test_a_replay_outlives_its_job_a_restart_and_the_lists(start_server: StartServer) -> None:
    server = await start_server()
    first = await post(server, "k-1")
    await server.call("DELETE", f"/api/v1/jobs/{first[1]['job_id']}?erase=true")
    again = await start_server()
    assert (await post(again, "k-1"))[1] == first[1]
    assert await count_jobs(again) == 0


async def test_a_replay_counts_against_the_rate_but_never_against_the_limit_of_jobs(start_server: StartServer) -> None:
    server = await start_server(limits={"concurrent_jobs": 1, "rate_per_minute": 3})
    answers = [(await post(server, "k-1"))[0] for _ in range(4)]
    assert answers == [202, 202, 202, 429]


async def test_after_a_day_the_key_is_free(server: Server, clock: Any) -> None:
    first = await post(server, "k-1")
    await server.call("DELETE", f"/api/v1/jobs/{first[1]['job_id']}")
    clock.advance(24 * 3600 + 1)
    status, body, headers = await post(server, "k-1", {"prompt": "a ring"})
    assert (status, headers.get("Idempotent-Replayed")) == (202, None)
    assert body["job_id"] != first[1]["job_id"]


async def test_what_was_refused_is_not_kept(server: Server) -> None:
    assert (await post(server, "k-1", {"prompt": ""}))[0] == 400
    assert (await post(server, "k-1", {"prompt": "a star"}))[0] == 202


async def test_keys_belong_to_their_agent(server: Server) -> None:
    from umrgen_core.keys import mint_key

    first = await post(server, "k-1")
    key = mint_key()
    await server.services.agents.create_agent("bob", "sid_ext_bob", key)
    headers = {"Idempotency-Key": "k-1", "Authorization": f"Bearer {key}"}
    status, body, _ = await server.call("POST", "/api/v1/generate", json=BODY, headers=headers)
    assert status == 202
    assert body["job_id"] != first[1]["job_id"]


@pytest.mark.parametrize("key", ["", "a b", "x" * 129, "schlüssel"])
async def test_a_key_that_is_not_visible_ascii_is_refused_by_name(server: Server, key: str) -> None:
    status, body, _ = await post(server, key)
    assert (status, body["errors"][0]["field"]) == (400, "Idempotency-Key")


async def test_a_hundred_equal_submissions_at_once_make_one_job(start_server: StartServer) -> None:
    server = await start_server(limits={"rate_per_minute": 1000})
    answers = await asyncio.gather(*(post(server, "k-1") for _ in range(100)))
    assert {status for status, _, _ in answers} == {202}
    assert len({body["job_id"] for _, body, _ in answers}) == 1
    assert await count_jobs(server) == 1
