"""The OpenAI Images API, with a worker that the test plays; the official client is in tests/e2e."""

from __future__ import annotations

import asyncio
import base64
import json

import pytest

from tests.api.conftest import Server, StartServer
from tests.api.openai_requests import (
    WIDE,
    begin,
    check_error,
    claim_soon,
    complete,
    edit,
    end,
    fail_next,
    list_jobs,
    wait_for_jobs,
)
from tests.api.test_upload import list_incoming
from tests.api.test_waiting import wait_for_waiters
from tests.conftest import picture_bytes
from umrgen_api.openai import render
from umrgen_core.keys import mint_key


async def test_a_picture_comes_back_in_the_answer(server: Server) -> None:
    waiting = begin(server, size="128x96", seed=7, user="somebody", quality="high")
    await complete(server)
    status, body, headers = await end(waiting)
    assert status == 200
    assert headers["Content-Type"].startswith("application/json")
    assert base64.b64decode(body["data"][0]["b64_json"]) == picture_bytes()
    assert (body["size"], body["output_format"], body["data"][0]["seed"]) == ("128x96", "png", 7)
    assert body["ignored"] == ["user", "quality"]
    (job,) = await list_jobs(server)
    assert job["job_id"] == body["data"][0]["job_id"]
    assert (job["width"], job["height"], job["seed"]) == (128, 96, 7)


async def test_a_picture_of_many_pieces_comes_whole(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "PIECE_BYTES", 300)
    waiting = begin(server)
    await complete(server)
    assert base64.b64decode((await end(waiting))[1]["data"][0]["b64_json"]) == picture_bytes()
    async with server.session.post("/v1/images/generations", json={"prompt": "a star", "stream": True}) as response:
        await complete(server, 2)
        *_, event = (await response.text()).removesuffix("\n\n").split("\n\n")
    data = json.loads(event.removeprefix("event: image_generation.completed\ndata: "))
    assert base64.b64decode(data["b64_json"]) == picture_bytes()


async def test_auto_is_the_models_size_and_the_steps_go_through(server: Server) -> None:
    waiting = begin(server, size="auto", steps=9, negative_prompt="blue", n=None)
    await complete(server)
    assert (await end(waiting))[1]["ignored"] == ["negative_prompt"]
    (job,) = await list_jobs(server)
    assert (job["width"], job["height"], job["steps"], job["negative"]) == (1024, 1024, 9, "blue")


async def test_a_url_is_made_from_public_url(start_server: StartServer) -> None:
    server = await start_server(
        api={"public_url": "https://umrgen.example"}, auth={"development_key_public": True}, limits=WIDE
    )
    waiting = begin(server, response_format="url")
    await complete(server)
    url = (await end(waiting))[1]["data"][0]["url"]
    assert url.startswith("https://umrgen.example/outputs/sid_ext_gen/umrgen_")
    async with server.session.get(url.removeprefix("https://umrgen.example")) as response:
        assert await response.read() == picture_bytes()


async def test_a_url_without_public_url_names_the_setting(server: Server) -> None:
    message = check_error(await end(begin(server, response_format="url")), 400, "unsupported_value", "response_format")
    assert "[api] public_url" in message
    assert await list_jobs(server) == []


async def test_the_same_idempotency_key_gets_the_same_pictures(server: Server) -> None:
    key = {"Idempotency-Key": "once"}
    first = begin(server, headers=key, n=2)
    await complete(server, 1)
    await complete(server, 2)
    again = await end(begin(server, headers=key, n=2))
    assert again[1] == (await end(first))[1]
    assert len(await list_jobs(server)) == 2
    answer = await end(begin(server, headers=key, n=3))
    check_error(answer, 409, "idempotency_conflict")
    assert answer[2]["X-Should-Retry"] == "false"


async def test_a_second_request_under_a_key_waits_for_the_first_ones_job(server: Server) -> None:
    key = {"Idempotency-Key": "once"}
    both = [begin(server, headers=key), begin(server, headers=key)]
    await wait_for_waiters(server, 2)
    await complete(server)
    assert (await end(both[0]))[1] == (await end(both[1]))[1]


async def test_an_edit_under_a_key_is_told_apart_by_its_images(start_server: StartServer) -> None:
    server = await start_server(limits=WIDE)
    server.session.headers["Idempotency-Key"] = "once"
    waiting = asyncio.create_task(edit(server, [picture_bytes(seed=1)]))
    await complete(server)
    assert (await end(waiting))[1] == (await edit(server, [picture_bytes(seed=1)]))[1]
    check_error(await edit(server, [picture_bytes(seed=2)]), 409, "idempotency_conflict")


async def test_the_idempotency_key_of_another_is_a_new_one(start_server: StartServer) -> None:
    server = await start_server(limits=WIDE)
    key = mint_key()
    await server.services.agents.create_agent("alice", "sid_ext_alice", key)
    own = begin(server, headers={"Idempotency-Key": "same"})
    other = begin(server, headers={"Idempotency-Key": "same", "Authorization": f"Bearer {key}"}, prompt="a star")
    for _ in range(2):
        await fail_next(server)
    assert [(await end(task))[0] for task in (own, other)] == [500, 500]
    assert [job["prompt"] for job in await list_jobs(server)] == ["a red circle"]


@pytest.mark.parametrize("name", ["image", "image[]"])
async def test_an_edits_images_become_references_in_order(server: Server, name: str) -> None:
    fields = {"n": "1", "size": "64x64", "seed": "3", "stream": "false", "input_fidelity": "high"}
    waiting = asyncio.create_task(edit(server, [picture_bytes(seed=1), picture_bytes(70, 90, seed=2)], name, **fields))
    claimed = await claim_soon(server)
    assert list_incoming(server) == []
    listed = (await server.call("GET", "/api/v1/references"))[1]["references"]
    sizes = {reference["filename"]: (reference["width"], reference["height"]) for reference in listed}
    assert [sizes[one] for one in claimed.job.reference_names] == [(96, 80), (70, 90)]
    assert (claimed.job.width, claimed.job.seed, claimed.job.prompt) == (64, 3, "the same in blue")
    await server.services.claims.fail(claimed, "content_blocked", "Refused.", retryable=False)
    server.services.changes.notify(claimed.job_id)
    check_error(await end(waiting), 400, "moderation_blocked", "prompt")


async def test_models_are_listed_and_named_by_their_names_or_by_openais(server: Server) -> None:
    model = {"id": "tiny-klein", "object": "model", "created": 0, "owned_by": "umrgen"}
    assert (await server.call("GET", "/v1/models"))[:2] == (200, {"object": "list", "data": [model]})
    for name in ("tiny-klein", "gpt-image-1", "gpt-image-2.5-flare", "dall-e-3", "chatgpt-image-latest"):
        assert (await server.call("GET", f"/v1/models/{name}"))[:2] == (200, model)
    message = check_error(await server.call("GET", "/v1/models/gpt-5"), 404, "model_not_found", "model")
    assert "tiny-klein" in message
    check_error(await end(begin(server, model="gpt-5")), 404, "model_not_found", "model")


async def test_a_name_of_openais_means_the_first_model_that_can_do_what_is_asked(start_server: StartServer) -> None:
    server = await start_server(infer={"models": ["qwen-image-edit-2511", "tiny-klein"]}, limits=WIDE)
    generating = begin(server, model="gpt-image-1")
    assert [job["model"] for job in await wait_for_jobs(server, 1)] == ["tiny-klein"]
    editing = asyncio.create_task(edit(server, [picture_bytes()], model="gpt-image-1"))
    assert [job["model"] for job in await wait_for_jobs(server, 2)] == ["tiny-klein", "qwen-image-edit-2511"]
    server.services.changes.stop()
    assert [(await end(task))[0] for task in (generating, editing)] == [503, 503]
