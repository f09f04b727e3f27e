"""What the daemon does for the next job while one is painted, and what that may never cost."""

from __future__ import annotations

import asyncio
import threading

from tests.conftest import make_settings
from tests.infer.conftest import WAIT_S, FakePainter, is_running
from tests.infer.test_daemon import keep_reference, request_cancel
from umrgen_core.jobs import JobState
from umrgen_infer.painter import Commission, DeviceLost, OnStep, Painting


class SteppingPainter(FakePainter):
    """Takes a step whenever the test lets it."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = threading.Semaphore(0)
        self.last_error: Exception | None = None

    def paint(self, commission: Commission, on_step: OnStep, *, lean: bool = False) -> Painting:
        for step in range(1, commission.steps):
            while not self.steps.acquire(timeout=0.01):
                on_step(step - 1)
            on_step(step)
        while not self.steps.acquire(timeout=0.01):
            on_step(commission.steps - 1)
        if self.last_error is not None:
            self.commissions.append(commission)
            raise self.last_error
        return super().paint(Commission("", "", 64, 64, 1, commission.seed, commission.references), on_step)

    def step(self, times: int = 1) -> None:
        self.steps.release(times)


async def start_two(start_daemon, submit, wait_for, agent, settings=None, **fields):
    """A painter at its first step, and another job in the queue."""
    painter = SteppingPainter()
    daemon, task = await start_daemon(settings, lambda _: painter)
    first = await wait_for(agent, (await submit(agent, seed=1)).id, is_running)
    second = await submit(agent, seed=2, **fields)
    return painter, daemon, task, first, second


async def test_the_next_job_is_claimed_when_one_step_is_left_and_no_sooner(
    start_daemon, make_agent, submit, wait_for, jobs
):
    agent = await make_agent("alice", concurrent_jobs=9)
    painter, _, _, first, second = await start_two(start_daemon, submit, wait_for, agent)
    painter.step(2)
    await wait_for(agent, first.id, lambda job: job.step == 2)
    assert (await jobs.find(agent, second.id)).state is JobState.QUEUED
    painter.step()
    await wait_for(agent, second.id, is_running)
    assert (await jobs.find(agent, first.id)).state is JobState.RUNNING
    painter.step(5)
    for job in (first, second):
        assert (await wait_for(agent, job.id)).attempts == 1


async def test_no_more_than_two_claims_are_ever_held(start_daemon, make_agent, submit, wait_for, database):
    agent = await make_agent("alice", concurrent_jobs=20)
    most = 0

    def count(step: int) -> None:
        nonlocal most
        rows = database.reader.all("SELECT count(*) AS running FROM jobs WHERE state = 'running'")
        most = max(most, asyncio.run_coroutine_threadsafe(rows, loop).result(WAIT_S)[0]["running"])

    class CountingPainter(FakePainter):
        def paint(self, commission: Commission, on_step: OnStep, *, lean: bool = False) -> Painting:
            def count_on_step(step: int) -> None:
                count(step)
                on_step(step)

            return super().paint(commission, count_on_step)

    loop = asyncio.get_running_loop()
    submitted = [await submit(agent, seed=seed) for seed in range(12)]
    counting = CountingPainter()
    await start_daemon(load=lambda _: counting)
    for job in submitted:
        assert (await wait_for(agent, job.id)).attempts == 1
    assert most == 2


async def test_references_of_the_next_job_are_decoded_while_it_still_waits_in_the_queue(
    start_daemon, make_agent, submit, wait_for, jobs, references, settings, monkeypatch
):
    from umrgen_infer import reference_cache

    decoded = threading.Event()
    load = reference_cache.load_reference

    def load_and_tell(*arguments):
        image = load(*arguments)
        decoded.set()
        return image

    monkeypatch.setattr(reference_cache, "load_reference", load_and_tell)
    agent = await make_agent("alice", concurrent_jobs=9)
    filename = await keep_reference(references, settings, agent)
    painter, daemon, _, _, second = await start_two(start_daemon, submit, wait_for, agent, reference_images=[filename])
    daemon._on_hint("queued")
    assert await asyncio.to_thread(decoded.wait, WAIT_S)
    assert (await jobs.find(agent, second.id)).state is JobState.QUEUED
    decoded.clear()
    painter.step(8)
    assert (await wait_for(agent, second.id)).state is JobState.COMPLETED
    assert not decoded.is_set()  # once was enough
    assert [len(one.references) for one in painter.commissions] == [0, 1]


async def test_a_job_with_attempts_behind_it_is_not_claimed_beside_another(
    start_daemon, make_agent, submit, wait_for, jobs, database
):
    agent = await make_agent("alice", concurrent_jobs=9)
    painter, _, _, first, second = await start_two(start_daemon, submit, wait_for, agent)
    sql = "UPDATE jobs SET attempts = 1, fence = 1 WHERE id = ?"
    await database.writer.run(lambda c: c.execute(sql, (second.id,)).rowcount)
    painter.step(3)
    await wait_for(agent, first.id, lambda job: job.step == 3)
    third = await submit(agent, seed=3)
    painter.step(9)
    ended = [await wait_for(agent, job.id) for job in (first, second, third)]
    assert [job.attempts for job in ended] == [1, 2, 1]
    assert ended[1].started_at_us >= ended[0].finished_at_us
    assert ended[2].started_at_us >= ended[1].finished_at_us


async def test_stopping_gives_back_a_job_that_was_claimed_ahead_and_undoes_its_attempt(
    start_daemon, make_agent, submit, wait_for
):
    agent = await make_agent("alice", concurrent_jobs=9)
    painter, daemon, task, first, second = await start_two(start_daemon, submit, wait_for, agent)
    painter.step(3)
    await wait_for(agent, second.id, is_running)
    daemon.stop()
    back = await wait_for(agent, second.id, lambda job: job.state is JobState.QUEUED)
    assert (back.attempts, back.fence) == (0, 1)
    painter.step()
    assert (await wait_for(agent, first.id)).state is JobState.COMPLETED
    assert await asyncio.wait_for(task, WAIT_S) == 0
    assert len(painter.commissions) == 1


async def test_a_device_that_is_lost_costs_the_job_that_was_claimed_ahead_nothing(
    start_daemon, make_agent, submit, wait_for
):
    agent = await make_agent("alice", concurrent_jobs=9)
    painter, _, task, first, second = await start_two(start_daemon, submit, wait_for, agent)
    painter.last_error = DeviceLost("CUDA error")
    painter.step(3)
    await wait_for(agent, second.id, is_running)
    painter.step()
    assert await asyncio.wait_for(task, WAIT_S) == 1
    back = [await wait_for(agent, job.id, lambda job: job.state is JobState.QUEUED) for job in (first, second)]
    assert [job.attempts for job in back] == [1, 0]
    assert len(painter.commissions) == 1


async def test_a_job_that_was_claimed_ahead_and_is_cancelled_is_never_painted(
    start_daemon, make_agent, submit, wait_for, database
):
    agent = await make_agent("alice", concurrent_jobs=9)
    painter, daemon, _, first, second = await start_two(start_daemon, submit, wait_for, agent)
    painter.step(3)
    await wait_for(agent, second.id, is_running)
    await request_cancel(database, second.id)
    daemon._on_hint(second.id)
    (held,) = [run for run in daemon._runs.values() if run.job_id == second.id]
    async with asyncio.timeout(WAIT_S):
        while held.lease.stop_reason is None:  # noqa: ASYNC110 - a heartbeat tells it
            await asyncio.sleep(0.01)
    painter.step()
    assert (await wait_for(agent, first.id)).state is JobState.COMPLETED
    assert (await wait_for(agent, second.id)).state is JobState.CANCELLED
    assert [one.seed for one in painter.commissions] == [1]


async def test_a_job_whose_reference_vanished_makes_way_for_the_next(
    start_daemon, make_agent, submit, wait_for, references, settings
):
    agent = await make_agent("alice", concurrent_jobs=9)
    filename = await keep_reference(references, settings, agent)
    (settings.storage.data_dir / "files" / "references" / "ref.png").unlink()
    painter, _, _, first, second = await start_two(start_daemon, submit, wait_for, agent, reference_images=[filename])
    third = await submit(agent, seed=3)
    painter.step(8)
    ended = [await wait_for(agent, job.id) for job in (first, second, third)]
    assert [job.error_code for job in ended] == [None, "invalid_reference", None]


async def test_signs_of_life_come_from_the_steps_and_from_the_idle_loop(
    start_daemon, make_agent, submit, wait_for, tmp_path
):
    beats: list[str] = []
    painter = SteppingPainter()
    settings = make_settings(tmp_path / "data", infer={"poll_s": 0.05})
    await start_daemon(settings, lambda _: painter, beat=lambda: beats.append(threading.current_thread().name))

    async def wait_for_beats(name: str) -> None:
        beats.clear()
        async with asyncio.timeout(WAIT_S):
            while not any(beat.startswith(name) for beat in beats):  # noqa: ASYNC110 - two threads write
                await asyncio.sleep(0.01)

    await wait_for_beats("MainThread")
    agent = await make_agent("alice")
    job = await wait_for(agent, (await submit(agent)).id, is_running)
    await wait_for_beats("painter")
    painter.step(4)
    assert (await wait_for(agent, job.id)).state is JobState.COMPLETED
