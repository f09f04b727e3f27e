from __future__ import annotations

import asyncio
import re
import uuid

import pytest

from tests.api.conftest import Server, StartServer
from tests.api.test_common import ask_with
from tests.api.test_status import accept, ask, claim, complete_next
from tests.conftest import FakeClock, picture_bytes
from umrgen_core.files import Shelf
from umrgen_core.keys import mint_key

GENERATE = "/api/v1/generate"
FIELDS = {"success", "job_id", "message", "state", "queue_position", "status_url", "ignored"}


async def upload(server: Server, seed: int = 0) -> dict[str, str]:
    return (await server.upload(picture_bytes(seed=seed)))[1]


async def test_an_accepted_job_is_answered_with_where_to_look(server: Server) -> None:
    status, body, headers = await server.generate()
    assert status == 202
    assert set(body) >= FIELDS
    assert (body["success"], body["message"], body["state"]) == (True, "Job accepted and queued", "queued")
    assert uuid.UUID(body["job_id"].removeprefix("ext_")).version == 4
    assert body["status_url"] == headers["Location"] == f"/api/v1/status/{body['job_id']}"
    assert (body["queue_position"], body["ignored"]) == (1, [])
    assert (await server.call("GET", headers["Location"]))[1]["job_id"] == body["job_id"]


async def test_the_request_of_the_guide_works_as_it_stands(server: Server) -> None:
    filename = (await upload(server))["filename"]
    guide = {"prompt": "Highly detailed portrait", "negative": "blurry, low quality", "width": 1024, "height": 1024}
    status, body, _ = await server.generate(**guide, steps=4, reference_images=[filename])
    assert (status, re.match("ext_", body["job_id"]) is not None) == (202, True)


async def test_what_is_not_honoured_is_named(server: Server) -> None:
    _, body, _ = await server.generate(negative="fog", model="tiny-klein", loras=[], callback_url="https://a.b", cfg=7)
    assert body["ignored"] == ["negative", "cfg"]
    assert (await ask(server, body["job_id"]))["negative"] == "fog"


async def test_the_place_in_the_queue_counts_the_jobs_before(start_server: StartServer) -> None:
    server = await start_server(limits={"concurrent_jobs": 3})
    assert [(await server.generate())[1]["queue_position"] for _ in range(3)] == [1, 2, 3]
    await claim(server)
    positions = [job["queue_position"] for job in [await ask(server, j) for j in await queued_ids(server)]]
    assert positions == [1, 2]


async def queued_ids(server: Server) -> list[str]:
    rows = await server.services.database.reader.all("SELECT id FROM jobs WHERE state = 'queued' ORDER BY seq")
    return [row["id"] for row in rows]


async def test_one_agents_many_jobs_do_not_hold_up_anothers_one(start_server: StartServer) -> None:
    server = await start_server(limits={"concurrent_jobs": 50})
    for _ in range(20):
        await accept(server)
    key = mint_key()
    await server.services.agents.create_agent("bob", "sid_ext_bob", key)
    headers = {"Authorization": f"Bearer {key}"}
    _, body, _ = await server.call("POST", GENERATE, json={"prompt": "a star"}, headers=headers)
    assert body["queue_position"] <= 2


async def test_the_limit_counts_queued_and_running_jobs_and_no_ended_ones(server: Server) -> None:
    await accept(server)
    assert (await server.generate())[0] == 429
    await complete_next(server)
    await accept(server)
    claimed = await claim(server)
    assert (await server.generate())[0] == 429
    await server.services.claims.fail(claimed, "model_error", "Broken.", retryable=False)
    await accept(server)


async def test_the_wait_that_is_proposed_comes_from_measured_runs(server: Server, clock: FakeClock) -> None:
    await accept(server)
    await complete_next(server, run_s=8)
    await accept(server)
    await claim(server)
    clock.advance(3)
    status, body, headers = await server.generate()
    assert (status, body["retry_after"], headers["Retry-After"]) == (429, 5.0, "5")


@pytest.mark.parametrize("limit", [1, 3])
async def test_a_hundred_equal_posts_at_once_never_have_more_jobs_than_the_limit(
    start_server: StartServer, limit: int
) -> None:
    server = await start_server(limits={"concurrent_jobs": limit, "rate_per_minute": 1000})
    answers = await asyncio.gather(*(server.generate() for _ in range(100)))
    assert sorted(status for status, _, _ in answers) == [202] * limit + [429] * (100 - limit)
    assert len(await queued_ids(server)) == limit


async def test_every_form_of_an_own_reference_is_taken(start_server: StartServer) -> None:
    server = await start_server(limits={"concurrent_jobs": 9})
    uploaded = await upload(server)
    name, url = uploaded["filename"], uploaded["url"]
    bare = url.partition("?")[0]
    for form in (
        name,
        url,
        bare,
        f"https://umrgen.example{url}",
        f"http://[::1]:3088{bare}",
        f"https://evil.test{url}",
    ):
        status, body, _ = await server.generate(reference_images=[form])
        assert status == 202, (form, body)
        assert (await ask(server, body["job_id"]))["reference_images"] == [form]
    for claimed in [await claim(server) for _ in range(6)]:
        assert len({pin.reference_id for pin in claimed.pins}) == 1


async def test_an_own_picture_is_a_reference_too(start_server: StartServer) -> None:
    server = await start_server(limits={"concurrent_jobs": 9})
    job_id = await accept(server)
    output = await complete_next(server)
    url = (await ask(server, job_id))["image_url"]
    for form in (url, f"https://umrgen.example{url}", output.filename):
        await accept(server, reference_images=[form])
        claimed = await claim(server)
        assert [pin.disk_name for pin in claimed.pins] == [output.disk_name]


async def test_references_keep_their_order_and_may_repeat(start_server: StartServer) -> None:
    server = await start_server(limits={"concurrent_jobs": 9})
    first, second = (await upload(server, 1))["filename"], (await upload(server, 2))["filename"]
    for names in ([first, second], [second, first], [first, first]):
        job_id = await accept(server, reference_images=names)
        assert (await ask(server, job_id))["reference_images"] == names
    pins = [[pin.reference_id for pin in (await claim(server)).pins] for _ in range(3)]
    assert pins == [[1, 2], [2, 1], [1, 1]]


async def test_no_part_of_a_name_is_a_name(server: Server) -> None:
    uploaded = await upload(server)
    name, url = uploaded["filename"], uploaded["url"]
    [disk_name] = [path.name for path in server.services.files.path(Shelf.REFERENCES, "").iterdir()]
    wrong = [
        *(name[:-1], name.upper(), f" {name}", f"{name}\x00", f"./{name}", f"references/sid_ext_gen/{name}", disk_name),
        *(f"/references/sid_ext_bob/{name}", f"/outputs/sid_ext_gen/{name}", f"/references/sid_ext_gen/../{name}"),
        *(url.replace("/references", "//references"), f"//evil.test{url}", "%", "*", "_" * 500),
        *(f"/v1{url}", "image_%", "image_" + "_" * 37 + ".png", "' OR 1=1 --", "file:///etc/passwd", "data:image/png,"),
    ]
    answers = {form: await server.generate(reference_images=[form]) for form in wrong}
    assert {form: body.get("filename") for form, (_, body, _) in answers.items()} == {form: form for form in wrong}
    assert {(status, body["code"]) for status, body, _ in answers.values()} == {(400, "reference_not_found")}
    assert await queued_ids(server) == []


async def test_a_reference_that_is_used_is_kept_longer(server: Server, clock: FakeClock) -> None:
    filename = (await upload(server))["filename"]
    _, before, _ = await server.call("GET", "/api/v1/references")
    clock.advance(3600)
    await accept(server, reference_images=[filename])
    _, after, _ = await server.call("GET", "/api/v1/references")
    assert after["references"][0]["expires_at"] > before["references"][0]["expires_at"]


async def test_a_refused_request_changes_nothing(server: Server, clock: FakeClock) -> None:
    filename = (await upload(server))["filename"]
    _, before, _ = await server.call("GET", "/api/v1/references")
    clock.advance(3600)
    assert (await server.generate(reference_images=[filename, "image_1.png"]))[0] == 400
    assert (await server.call("GET", "/api/v1/references"))[1] == before
    assert (await server.call("DELETE", f"/api/v1/references/{filename}"))[0] == 200


async def test_the_checks_come_in_the_order_of_the_contract(start_server: StartServer) -> None:
    server = await start_server()
    await accept(server)
    steps = [
        ("unauthorized", {"headers": {"Content-Type": "text/plain"}, "data": b"{" * 70_000}),
        ("unsupported_media_type", {"headers": {"Content-Type": "text/plain"}, "data": b"{" * 70_000}),
        ("request_too_large", {"headers": {"Content-Type": "application/json"}, "data": b"{" * 70_000}),
        ("invalid_json", {"headers": {"Content-Type": "application/json"}, "data": b"{"}),
        ("invalid_request", {"json": {"prompt": "porn", "width": 1, "reference_images": ["x"]}}),
        ("safety_violation", {"json": {"prompt": "porn", "reference_images": ["x"]}}),
        ("reference_not_found", {"json": {"prompt": "a star", "reference_images": ["x"]}}),
        ("concurrent_limit", {"json": {"prompt": "a star"}}),
    ]
    for code, request in steps:
        if code == "unauthorized":
            _, body, _ = await ask_with(server, request["headers"], GENERATE, "POST")
        else:
            _, body, _ = await server.call("POST", GENERATE, **request)
        assert body["code"] == code


async def test_the_rate_is_checked_before_the_body_is_looked_at(start_server: StartServer) -> None:
    server = await start_server(limits={"rate_per_minute": 0})
    _, body, _ = await server.call("POST", GENERATE, data=b"{", headers={"Content-Type": "text/plain"})
    assert body["code"] == "rate_limit"
