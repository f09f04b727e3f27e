from __future__ import annotations

import asyncio
import errno
import hashlib
import io
import json
import threading
from pathlib import Path

import structlog
from PIL import Image

from tests.conftest import make_settings
from tests.infer.conftest import WAIT_S, is_running
from umrgen_core.clock import SystemClock
from umrgen_core.errors import RunError, Unavailable
from umrgen_core.files import FileStore, Shelf
from umrgen_core.jobs import ErrorCode, JobState
from umrgen_core.worker_store import WorkerState, WorkerStore
from umrgen_infer.daemon import Daemon
from umrgen_infer.painter import DeviceLost


def stored_files(settings) -> list[str]:
    return sorted(path.name for path in (settings.storage.data_dir / "files" / Shelf.OUTPUTS).iterdir())


async def request_cancel(database, job_id) -> None:
    await database.writer.run(
        lambda c: c.execute("UPDATE jobs SET cancel_requested_at_us = 1 WHERE id = ?", (job_id,)).rowcount
    )


async def test_a_queued_job_becomes_a_png_of_exactly_the_requested_size(
    start_daemon, make_agent, submit, wait_for, settings
):
    await start_daemon()
    agent = await make_agent("alice")
    job = await wait_for(agent, (await submit(agent, width=131, height=77, seed=5)).id)
    assert job.state is JobState.COMPLETED
    content = FileStore(settings.storage.data_dir).read(Shelf.OUTPUTS, job.output.disk_name)
    assert (len(content), hashlib.sha256(content).hexdigest()) == (job.output.bytes, job.output.sha256)
    image = Image.open(io.BytesIO(content))
    assert (image.format, image.size, image.mode) == ("PNG", (131, 77), "RGB")
    written = json.loads(image.text["umrgen"])
    assert (written["seed"], written["job_id"], written["model"]) == (5, job.id, "tiny-klein")
    assert "prompt" not in written


async def test_timings_name_every_stage_and_add_up(start_daemon, make_agent, submit, wait_for):
    await start_daemon()
    agent = await make_agent("alice")
    timings = (await wait_for(agent, (await submit(agent)).id)).timings
    assert set(timings) == {"queued", "load_references", "encode", "denoise", "decode", "save", "total"}
    assert (timings["encode"], timings["denoise"], timings["decode"]) == (0.1, 0.2, 0.3)
    assert timings["total"] >= timings["queued"] + timings["save"]


async def test_the_prompt_is_written_into_the_png_only_when_asked_for(
    start_daemon, make_agent, submit, wait_for, settings, tmp_path
):
    await start_daemon(make_settings(tmp_path / "data", files={"embed_prompt": True}))
    agent = await make_agent("alice")
    job = await wait_for(agent, (await submit(agent, prompt="a secret star")).id)
    path = FileStore(settings.storage.data_dir).path(Shelf.OUTPUTS, job.output.disk_name)
    assert json.loads(Image.open(path).text["umrgen"])["prompt"] == "a secret star"


async def test_progress_is_seen_while_the_job_runs(start_daemon, make_agent, submit, wait_for, painter):
    painter.hold.clear()
    await start_daemon()
    agent = await make_agent("alice")
    job = await wait_for(agent, (await submit(agent)).id, lambda job: job.step >= 1)
    assert (job.state, job.attempts, job.fence) == (JobState.RUNNING, 1, 1)
    painter.hold.set()
    assert (await wait_for(agent, job.id)).step == 4


async def test_one_failed_job_never_stops_the_daemon(start_daemon, make_agent, submit, wait_for, painter):
    await start_daemon()
    agent = await make_agent("alice")
    painter.error = RunError(ErrorCode.OUT_OF_MEMORY, "too big", retryable=False)
    failed = await wait_for(agent, (await submit(agent)).id)
    assert (failed.state, failed.error_code, failed.retryable) == (JobState.FAILED, "out_of_memory", False)
    painter.error = ValueError("the pipeline has a bug")
    broken = await wait_for(agent, (await submit(agent)).id)
    assert (broken.error_code, broken.retryable) == ("model_error", True)
    assert "bug" not in broken.error  # what the model says may hold paths
    painter.error = None
    assert (await wait_for(agent, (await submit(agent)).id)).state is JobState.COMPLETED


async def test_a_reference_that_vanished_fails_the_job_by_name(
    start_daemon, make_agent, submit, wait_for, references, settings
):
    agent = await make_agent("alice")
    filename = await keep_reference(references, settings, agent)
    (settings.storage.data_dir / "files" / Shelf.REFERENCES / "ref.png").unlink()
    await start_daemon()
    job = await wait_for(agent, (await submit(agent, reference_images=[filename])).id)
    assert (job.state, job.error_code) == (JobState.FAILED, "invalid_reference")


async def test_references_reach_the_painter_in_order_at_the_models_size(
    start_daemon, make_agent, submit, wait_for, references, settings, painter
):
    agent = await make_agent("alice")
    red = await keep_reference(references, settings, agent, "red")
    blue = await keep_reference(references, settings, agent, "blue")
    await start_daemon()
    job = await wait_for(agent, (await submit(agent, reference_images=[blue, red])).id)
    assert job.state is JobState.COMPLETED
    colours = [image.getpixel((32, 32)) for image in painter.commissions[0].references]
    assert colours == [(0, 0, 255), (255, 0, 0)]
    assert {image.size for image in painter.commissions[0].references} == {(64, 64)}


async def keep_reference(references, settings, agent, colour="red") -> str:
    from umrgen_core.reference_store import NewReference

    files = FileStore(settings.storage.data_dir)
    files.prepare()
    buffer = io.BytesIO()
    Image.new("RGB", (100, 60), colour).save(buffer, "PNG")
    name = "ref.png" if colour == "red" else f"{colour}.png"
    published = files.publish_bytes(Shelf.REFERENCES, name, buffer.getvalue())
    digest = published.sha256
    new = NewReference(
        f"image_{colour}.png", name, "png", 100, 60, published.bytes, digest, digest, 100, 60, published.bytes, "png"
    )
    return (await references.put(agent, new)).filename


async def test_a_cancelled_run_ends_before_its_next_step(
    start_daemon, make_agent, submit, wait_for, painter, database, settings
):
    painter.hold.clear()
    daemon, _ = await start_daemon()
    agent = await make_agent("alice")
    job = await wait_for(agent, (await submit(agent)).id, is_running)
    await request_cancel(database, job.id)
    daemon._on_hint(job.id)
    assert (await wait_for(agent, job.id)).state is JobState.CANCELLED
    assert stored_files(settings) == []


async def test_a_result_that_comes_after_a_cancel_is_not_published(
    start_daemon, make_agent, submit, wait_for, painter, database, settings
):
    painter.hold.clear()
    await start_daemon()
    agent = await make_agent("alice")
    job = await wait_for(agent, (await submit(agent, steps=1)).id, lambda job: job.step == 1)
    await request_cancel(database, job.id)
    painter.hold.set()
    assert (await wait_for(agent, job.id)).state is JobState.CANCELLED
    assert stored_files(settings) == []


async def test_a_worker_that_lost_its_claim_leaves_nothing(
    start_daemon, make_agent, submit, wait_for, painter, database, settings
):
    painter.hold.clear()
    await start_daemon()
    agent = await make_agent("alice")
    job = await wait_for(agent, (await submit(agent, steps=1)).id, lambda job: job.step == 1)
    await database.writer.run(lambda c: c.execute("UPDATE jobs SET fence = fence + 1 WHERE id = ?", (job.id,)).rowcount)
    painter.hold.set()
    other = await submit(await make_agent("bob"))
    await wait_for(await make_agent_again(database, settings, "bob"), other.id)
    still = await wait_for(agent, job.id, is_running)
    assert still.output is None
    assert all(not name.startswith(job.id.removeprefix("ext_")) for name in stored_files(settings))


async def make_agent_again(database, settings, name):
    from umrgen_core.agents import Agent, AgentLimits

    row = await database.reader.one("SELECT id, session_id FROM agents WHERE name = :name", name=name)
    limits = AgentLimits(1, 60, 600, 500, 10**9, 10**10)
    return Agent(row["id"], name, row["session_id"], 0, frozenset(), limits, frozenset())


async def test_stopping_finishes_a_run_that_ends_in_time(start_daemon, make_agent, submit, wait_for, painter):
    painter.hold.clear()
    daemon, task = await start_daemon()
    agent = await make_agent("alice")
    # Running is said at the claim; what has the pipeline has done a step.
    job = await wait_for(agent, (await submit(agent)).id, lambda job: job.step >= 1)
    daemon.stop()
    painter.hold.set()
    assert await asyncio.wait_for(task, WAIT_S) == 0
    assert (await wait_for(agent, job.id)).state is JobState.COMPLETED


async def test_stopping_gives_back_a_run_that_does_not_end_and_undoes_the_attempt(
    start_daemon, make_agent, submit, wait_for, painter, tmp_path
):
    painter.hold.clear()
    daemon, task = await start_daemon(make_settings(tmp_path / "data", infer={"stop_grace_s": 0.05}))
    agent = await make_agent("alice")
    job = await wait_for(agent, (await submit(agent)).id, is_running)
    daemon.stop()
    assert await asyncio.wait_for(task, WAIT_S) == 0
    job = await wait_for(agent, job.id, lambda job: job.state is JobState.QUEUED)
    assert (job.attempts, job.fence) == (0, 1)


async def test_a_run_past_its_deadline_is_recorded_and_the_process_ends(
    start_daemon, make_agent, submit, wait_for, painter, tmp_path
):
    painter.hold.clear()
    _, task = await start_daemon(make_settings(tmp_path / "data", jobs={"deadline_s": 0.2}))
    agent = await make_agent("alice")
    job = await submit(agent)
    ended = await wait_for(agent, job.id)
    assert (ended.state, ended.error_code) == (JobState.FAILED, "timeout")
    assert await asyncio.wait_for(task, WAIT_S) == 1


async def test_a_lost_device_lets_the_job_go_with_its_attempt_counted_and_ends_the_process(
    start_daemon, make_agent, submit, wait_for, painter
):
    painter.error = DeviceLost("CUDA error: canary")
    painter.error.__cause__ = RuntimeError("canary")
    with structlog.testing.capture_logs() as logs:
        _, task = await start_daemon()
        agent = await make_agent("alice")
        job = await submit(agent)
        assert await asyncio.wait_for(task, WAIT_S) == 1
    told = next(one for one in logs if one["event"] == "device_lost")
    assert (told["error_type"], "RuntimeError, then:" in told["where"]) == ("DeviceLost", True)
    assert "in paint\n" in told["where"]
    assert "canary" not in str(told)  # it may be the prompt
    assert "exc_info" not in told
    job = await wait_for(agent, job.id, lambda job: job.state is JobState.QUEUED)
    assert job.attempts == 1


async def test_a_job_that_breaks_the_device_a_second_time_is_not_run_again(
    start_daemon, make_agent, submit, wait_for, painter
):
    painter.error = DeviceLost("CUDA error")
    agent = await make_agent("alice")
    job = await submit(agent)
    for _ in range(2):
        _, task = await start_daemon()
        assert await asyncio.wait_for(task, WAIT_S) == 1
    ended = await wait_for(agent, job.id)
    assert (ended.state, ended.error_code, ended.retryable) == (JobState.FAILED, "model_error", False)
    assert (ended.attempts, len(painter.commissions)) == (2, 2)
    assert "failed in 2 runs of this job" in ended.error


async def test_a_wall_clock_that_steps_back_costs_nothing(
    settings, database, painter, make_agent, submit, wait_for, start_daemon
):
    class PastClock(SystemClock):
        def wall_us(self) -> int:
            return 1_000_000

    agent = await make_agent("alice")
    job = await submit(agent)
    daemon = Daemon(settings, PastClock(), database, lambda _: painter)
    task = asyncio.create_task(daemon.serve())
    ended = await wait_for(agent, job.id)
    daemon.stop()
    await asyncio.wait_for(task, WAIT_S)
    assert (ended.state, ended.timings["total"]) == (JobState.COMPLETED, 0)


async def test_a_hung_run_ends_the_process_even_when_that_cannot_be_recorded(
    start_daemon, make_agent, submit, wait_for, painter, tmp_path, monkeypatch
):
    monkeypatch.setattr("umrgen_infer.run.SETTLE_ATTEMPTS", 0)
    painter.hold.clear()
    daemon, task = await start_daemon(make_settings(tmp_path / "data", jobs={"deadline_s": 0.5}))
    agent = await make_agent("alice")
    await wait_for(agent, (await submit(agent)).id, is_running)

    async def refuse(*_):
        raise Unavailable("the disk is full")

    monkeypatch.setattr(daemon._claims, "fail", refuse)
    assert await asyncio.wait_for(task, WAIT_S) == 1


async def test_a_job_with_attempts_behind_it_runs_alone(start_daemon, make_agent, submit, wait_for, painter, database):
    agent = await make_agent("alice", concurrent_jobs=2)
    first, second = await submit(agent), await submit(agent)
    await database.writer.run(
        lambda c: c.execute("UPDATE jobs SET attempts = 1, fence = 1 WHERE id = ?", (first.id,)).rowcount
    )
    await start_daemon()
    ended = await wait_for(agent, first.id)
    after = await wait_for(agent, second.id)
    assert ended.attempts == 2
    assert after.started_at_us >= ended.finished_at_us


async def test_the_worker_tells_what_it_does_and_withdraws(start_daemon, database, painter):
    workers = WorkerStore(database)
    daemon, task = await start_daemon()
    deadline = asyncio.get_running_loop().time() + WAIT_S
    while [w.state for w in await workers.list_all()] != [WorkerState.READY]:
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.01)
    daemon.stop()
    await asyncio.wait_for(task, WAIT_S)
    assert await workers.list_all() == []


async def test_a_job_wakes_the_daemon_at_once(start_daemon, make_agent, submit, wait_for, tmp_path, database):
    from umrgen_core.wakeup import Listener, Wakeup

    await start_daemon(make_settings(tmp_path / "data", infer={"poll_s": 60}))
    agent = await make_agent("alice")
    wakeup = Wakeup(Path(tmp_path / "data"), Listener.API, "test")
    job = await submit(agent)
    wakeup.send(Listener.INFER, "queued")
    assert (await wait_for(agent, job.id)).state is JobState.COMPLETED
    wakeup.close()


async def test_what_a_pipeline_raises_is_logged_without_its_message(
    start_daemon, make_agent, submit, wait_for, painter, capsys
):
    painter.error = ValueError("the prompt 'a secret star' is too long")
    await start_daemon()
    agent = await make_agent("alice")
    job = await wait_for(agent, (await submit(agent, prompt="a secret star")).id)
    assert job.error_code == "model_error"
    logged = "".join(capsys.readouterr())
    assert "model_error" in logged
    assert "ValueError" in logged
    assert "secret" not in logged


async def test_a_data_directory_that_cannot_be_looked_at_delays_claims_and_ends_nothing(
    start_daemon, make_agent, submit, wait_for, tmp_path, monkeypatch
):
    """As on a network disk that is away for a moment."""
    looked = threading.Event()

    def look(_: object) -> int:
        looked.set()
        raise OSError(errno.ESTALE, "Stale file handle")

    agent = await make_agent("alice")
    job = await submit(agent)
    monkeypatch.setattr("umrgen_core.disk.DiskGuard.free_bytes", look)
    with structlog.testing.capture_logs() as logs:
        _, serving = await start_daemon(make_settings(tmp_path / "data", infer={"poll_s": 0.02}))
        assert await asyncio.to_thread(looked.wait, WAIT_S)
        monkeypatch.undo()
        assert (await wait_for(agent, job.id)).state is JobState.COMPLETED
    assert not serving.done()
    assert "Stale file handle" in next(one["error"] for one in logs if one["event"] == "claim_delayed")
