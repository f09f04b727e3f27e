from __future__ import annotations

import asyncio

import pytest

from tests.api.conftest import Server
from umrgen_core.errors import StaleClaim
from umrgen_core.files import Shelf
from umrgen_core.job_ends import NewOutput


async def start_one(server: Server):
    _, accepted, _ = await server.generate()
    return await server.services.claims.claim_next("tiny-klein", "worker"), accepted["job_id"]


async def complete(server: Server, claim) -> None:
    published = await asyncio.to_thread(
        server.services.files.publish_bytes, Shelf.OUTPUTS, f"{claim.job_id}.png", b"picture"
    )
    output = NewOutput(f"umrgen_{claim.job.seq}.png", published.disk_name, 64, 64, published.bytes, published.sha256)
    await server.services.claims.complete(claim, output, {"total": 1.0}, 1.0)


async def cancel(server: Server, job_id: str, query: str = ""):
    return await server.call("DELETE", f"/api/v1/jobs/{job_id}{query}")


async def test_a_queued_job_is_cancelled_at_once_and_its_slot_is_free(server: Server) -> None:
    _, accepted, _ = await server.generate()
    status, body, _ = await cancel(server, accepted["job_id"])
    assert (status, body["state"]) == (200, "cancelled")
    assert "finished_at" in body
    assert (await server.generate())[0] == 202
    assert await server.services.claims.claim_next("tiny-klein", "worker") is not None


async def test_a_running_job_never_completes_after_its_cancel_was_answered(server: Server) -> None:
    claim, job_id = await start_one(server)
    status, body, _ = await cancel(server, job_id)
    assert (status, body["state"], body["cancel_requested"]) == (200, "running", True)
    with pytest.raises(StaleClaim):
        await complete(server, claim)
    await server.services.claims.acknowledge_cancel(claim)
    assert (await server.call("GET", f"/api/v1/status/{job_id}"))[1]["state"] == "cancelled"


async def test_cancelling_an_ended_job_changes_nothing(server: Server) -> None:
    claim, job_id = await start_one(server)
    await complete(server, claim)
    before = (await server.call("GET", f"/api/v1/status/{job_id}"))[1]
    status, body, _ = await cancel(server, job_id)
    assert (status, body) == (200, before)


@pytest.mark.parametrize("job_id", ["ext_none", "x", "%00"])
async def test_a_job_that_is_not_there_cannot_be_cancelled(server: Server, job_id: str) -> None:
    status, body, _ = await cancel(server, job_id)
    assert (status, body["code"]) == (404, "job_not_found")


async def test_an_erased_job_leaves_neither_row_nor_picture_nor_prompt(server: Server) -> None:
    claim, job_id = await start_one(server)
    await complete(server, claim)
    status, body, _ = await cancel(server, job_id, "?erase=true")
    assert (status, body["erased"], body["state"]) == (200, True, "completed")
    assert (await server.call("GET", f"/api/v1/status/{job_id}"))[0] == 404
    assert not server.services.files.exists(Shelf.OUTPUTS, f"{job_id}.png")
    assert await server.services.database.reader.all("SELECT * FROM outputs") == []
    usage = await server.services.database.reader.one("SELECT sum(used_output_bytes) AS used FROM agents")
    assert usage["used"] == 0


async def test_a_queued_job_can_be_erased_and_a_running_one_cannot(server: Server) -> None:
    _, accepted, _ = await server.generate()
    assert (await cancel(server, accepted["job_id"], "?erase=true"))[1]["state"] == "cancelled"
    _, job_id = await start_one(server)
    status, body, _ = await cancel(server, job_id, "?erase=true")
    assert (status, body["code"], body["errors"][0]["field"]) == (400, "invalid_request", "erase")
    assert (await server.call("GET", f"/api/v1/status/{job_id}"))[1]["cancel_requested"] is False


async def test_a_picture_that_a_live_job_names_cannot_be_erased(server: Server) -> None:
    claim, job_id = await start_one(server)
    await complete(server, claim)
    image_url = (await server.call("GET", f"/api/v1/status/{job_id}"))[1]["image_url"]
    _, follower, _ = await server.generate(reference_images=[image_url])
    status, body, _ = await cancel(server, job_id, "?erase=true")
    assert (status, body["code"]) == (409, "reference_in_use")
    await cancel(server, follower["job_id"])
    assert (await cancel(server, job_id, "?erase=true"))[0] == 200


async def test_erase_takes_true_or_false_only(server: Server) -> None:
    _, accepted, _ = await server.generate()
    status, body, _ = await cancel(server, accepted["job_id"], "?erase=maybe")
    assert (status, body["errors"][0]["field"]) == (400, "erase")
    assert (await server.call("GET", f"/api/v1/status/{accepted['job_id']}"))[1]["state"] == "queued"
