from __future__ import annotations

import re
from typing import Any

from tests.api.conftest import Server, StartServer
from tests.conftest import FakeClock, picture_bytes
from umrgen_core.files import Shelf
from umrgen_core.job_ends import NewOutput
from umrgen_core.jobs import Claim
from umrgen_core.names import new_output_filename, output_disk_name

MODEL = "tiny-klein"
ALWAYS = {"success", "job_id", "state", "created_at", "attempts", "prompt", "negative", "width", "height", "steps"} | {
    *("seed", "reference_images", "model")
}
OF_STATE = {
    "queued": {"queue_position", "eta_seconds"},
    "running": {"progress", "started_at", "eta_seconds", "cancel_requested"},
    "completed": {"image_url", "finished_at", "timings", "sha256", "bytes", "expires_at"},
    "failed": {"error", "error_code", "retryable"},
    "cancelled": {"finished_at"},
}
TIMINGS = {
    "queued": 0.5,
    "load_references": 0.0,
    "encode": 0.1,
    "denoise": 1.0,
    "decode": 0.2,
    "save": 0.1,
    "total": 1.9,
}
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


async def claim(server: Server) -> Claim:
    """Take the next job as a worker does."""
    claimed = await server.services.claims.claim_next(MODEL, "worker-1")
    assert claimed is not None
    return claimed


async def complete_next(server: Server, run_s: float = 1.5) -> NewOutput:
    """Run the next job to its end with a real file; its output."""
    claimed = await claim(server)
    disk_name = output_disk_name(claimed.job_id, claimed.fence)
    published = server.services.files.publish_bytes(Shelf.OUTPUTS, disk_name, picture_bytes())
    output = NewOutput(new_output_filename(), disk_name, 96, 80, published.bytes, published.sha256)
    await server.services.claims.complete(claimed, output, TIMINGS, run_s)
    return output


async def request_cancel(server: Server, job_id: str) -> None:
    """Ask for a cancel as the API will."""
    statement = f"UPDATE jobs SET cancel_requested_at_us = 1 WHERE id = '{job_id}'"
    await server.services.database.writer.run(lambda connection: connection.execute(statement))


async def accept(server: Server, **fields: Any) -> str:
    """The id of a new job."""
    status, body, _ = await server.generate(**fields)
    assert status == 202, body
    job_id: str = body["job_id"]
    return job_id


async def ask(server: Server, job_id: str) -> dict[str, Any]:
    """The job's status, checked for the fields that its state has and for those of no other state."""
    status, body, _ = await server.call("GET", f"/api/v1/status/{job_id}")
    assert status == 200
    own = OF_STATE[body["state"]]
    assert set(body) >= ALWAYS | own
    assert not set(body) & (set().union(*OF_STATE.values()) - own - {"finished_at", "expires_at"})
    times = [value for name, value in body.items() if name.endswith("_at")]
    assert all(TIME.fullmatch(value) for value in times)
    assert body["success"] is True
    assert body["job_id"] == job_id
    result: dict[str, Any] = body
    return result


async def test_every_state_shows_the_request_as_it_was_accepted(server: Server) -> None:
    reference = (await server.upload(picture_bytes()))[1]["filename"]
    wanted = {"prompt": "a blue star", "negative": "fog", "width": 300, "height": 200, "steps": 7, "seed": 42}
    job_id = await accept(server, **wanted, reference_images=[reference])
    for _ in range(2):
        status = await ask(server, job_id)
        assert {name: status[name] for name in wanted} == wanted
        assert (status["reference_images"], status["model"]) == ([reference], MODEL)
        if status["state"] == "queued":
            await claim(server)


async def test_the_status_of_a_job_with_defaults_tells_the_values_that_will_be_used(server: Server) -> None:
    status = await ask(server, await accept(server, prompt="  a star \n"))
    assert (status["prompt"], status["negative"], status["reference_images"]) == ("a star", "", [])
    assert (status["width"], status["height"], status["steps"]) == (1024, 1024, 4)
    assert 0 <= status["seed"] < 2**53


async def test_a_queued_job_tells_its_place_and_no_estimate_before_anything_was_measured(server: Server) -> None:
    status = await ask(server, await accept(server))
    assert (status["state"], status["attempts"]) == ("queued", 0)
    assert (status["queue_position"], status["eta_seconds"]) == (1, None)
    assert "queue_position_capped" not in status


async def test_the_estimate_of_a_queued_job_comes_from_measured_runs(start_server: StartServer) -> None:
    server = await start_server(limits={"concurrent_jobs": 5})
    await accept(server)
    await complete_next(server, run_s=2.5)
    first, second = [await accept(server) for _ in range(2)]
    assert (await ask(server, first))["eta_seconds"] == 2.5
    assert (await ask(server, second))["eta_seconds"] == 5.0


async def test_a_place_above_100_is_capped_and_says_so(start_server: StartServer) -> None:
    server = await start_server(limits={"concurrent_jobs": 200, "rate_per_minute": 1000})
    job_ids = [await accept(server) for _ in range(102)]
    told = [await ask(server, job_ids[index]) for index in (0, 99, 100, 101)]
    assert [status["queue_position"] for status in told] == [1, 100, 100, 100]
    assert [status.get("queue_position_capped") for status in told] == [None, None, True, True]


async def test_a_running_job_tells_its_progress(server: Server, clock: FakeClock) -> None:
    job_id = await accept(server, steps=8)
    claimed = await claim(server)
    begun = await ask(server, job_id)
    assert (begun["state"], begun["attempts"], begun["cancel_requested"]) == ("running", 1, False)
    assert begun["progress"] == {"step": 0, "steps": 8, "fraction": 0.0}
    assert begun["eta_seconds"] is None
    clock.advance(1)
    await server.services.claims.put_progress(claimed, 2)
    assert (await ask(server, job_id))["progress"] == {"step": 2, "steps": 8, "fraction": 0.25}


async def test_the_estimate_of_a_running_job_is_what_is_left_of_it(server: Server, clock: FakeClock) -> None:
    await accept(server)
    await complete_next(server, run_s=10)
    job_id = await accept(server)
    await claim(server)
    clock.advance(4)
    assert (await ask(server, job_id))["eta_seconds"] == 6.0
    clock.advance(20)
    assert (await ask(server, job_id))["eta_seconds"] == 0.0


async def test_a_completed_job_tells_its_picture(server: Server) -> None:
    job_id = await accept(server)
    output = await complete_next(server)
    status = await ask(server, job_id)
    assert status["state"] == "completed"
    assert status["image_url"] == f"/outputs/sid_ext_gen/{output.filename}?session_id=sid_ext_gen"
    assert re.fullmatch(r"umrgen_\d{24,}\.png", output.filename)
    assert (status["sha256"], status["bytes"]) == (output.sha256, output.bytes)
    assert status["timings"] == TIMINGS
    assert status["expires_at"] > status["finished_at"] >= status["created_at"]


async def test_a_failed_job_tells_why_and_whether_another_try_may_help(server: Server) -> None:
    for retryable in (True, False):
        job_id = await accept(server)
        await server.services.claims.fail(await claim(server), "model_error", "The model broke.", retryable)
        status = await ask(server, job_id)
        assert (status["state"], status["error_code"]) == ("failed", "model_error")
        assert (status["error"], status["retryable"]) == ("The model broke.", retryable)


async def test_a_cancel_shows_while_it_is_asked_for_and_when_it_is_done(server: Server) -> None:
    job_id = await accept(server)
    claimed = await claim(server)
    await request_cancel(server, job_id)
    assert (await ask(server, job_id))["cancel_requested"] is True
    await server.services.claims.acknowledge_cancel(claimed)
    assert (await ask(server, job_id))["state"] == "cancelled"


async def test_a_job_whose_worker_was_lost_is_queued_again_and_fails_in_the_end(
    start_server: StartServer, clock: FakeClock
) -> None:
    server = await start_server(jobs={"max_attempts": 2})
    job_id = await accept(server)
    for attempts, state in ((1, "queued"), (2, "failed")):
        await claim(server)
        clock.advance(31)
        await server.services.recovery.recover_lost()
        status = await ask(server, job_id)
        assert (status["state"], status["attempts"]) == (state, attempts)
    assert (status["error_code"], status["retryable"]) == ("worker_lost", True)


async def test_a_job_that_no_worker_took_in_time_fails(server: Server, clock: FakeClock) -> None:
    job_id = await accept(server)
    clock.advance(86_401)
    await server.services.recovery.recover_lost()
    status = await ask(server, job_id)
    assert (status["state"], status["error_code"]) == ("failed", "timeout")


async def test_an_ended_job_is_found_until_it_expires(server: Server, clock: FakeClock) -> None:
    job_id = await accept(server)
    await complete_next(server)
    clock.advance(7 * 86_400 - 1)
    await ask(server, job_id)
    clock.advance(1)
    status, body, _ = await server.call("GET", f"/api/v1/status/{job_id}")
    assert (status, body["code"]) == (404, "job_not_found")


async def test_no_other_job_id_is_found(server: Server) -> None:
    job_id = await accept(server)
    for other in ("ext_", job_id[:-1], job_id.upper(), job_id + "%20", "%00", "%ED%A0%80", "x" * 4000, "'", "*"):
        status, body, _ = await server.call("GET", f"/api/v1/status/{other}")
        assert (status, body["code"]) == (404, "job_not_found"), other
