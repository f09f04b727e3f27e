"""Several jobs painted in one call: which, in what order, and that no one of them ever pays for another."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import replace

import pytest
import structlog
from PIL import Image

from tests.conftest import make_settings
from tests.infer.conftest import WAIT_S, FakePainter, is_running
from tests.infer.test_daemon import keep_reference, request_cancel
from umrgen_core.errors import RunError
from umrgen_core.jobs import ErrorCode, JobState
from umrgen_core.wakeup import Listener, Wakeup
from umrgen_infer.painter import Commission, DeviceLost, OnStep, OutOfMemory, Painting
from umrgen_infer.schedule import go_together

MOST = 3


class CompanyPainter(FakePainter):
    """Paints up to three together, each in the grey of its seed; what is poisoned breaks whatever it is part of."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[int, ...]] = []
        self.hold_together = threading.Event()
        self.hold_together.set()
        self.failure: BaseException | None = None
        self.poison: BaseException | None = None
        self.most = MOST
        self.hung = threading.Event()
        self.hung.set()

    def find_most_together(self, width: int, height: int) -> int:
        return self.most

    def paint_together(self, commissions: Sequence[Commission], on_step: OnStep) -> Sequence[Painting]:
        self.calls.append(tuple(commission.seed for commission in commissions))
        for step in range(1, commissions[0].steps + 1):
            on_step(step)
            while not self.hold_together.wait(0.01):
                on_step(step)
        self.hung.wait(WAIT_S)
        self._break(commissions)
        if self.failure is not None:
            raise self.failure
        return [replace(self._draw(one), ran_with={"batch": len(commissions)}) for one in commissions]

    def paint(self, commission: Commission, on_step: OnStep, *, lean: bool = False) -> Painting:
        self.calls.append((commission.seed,))
        painting = super().paint(commission, on_step)
        self._break([commission])
        return replace(painting, image=self._draw(commission).image)

    def _break(self, commissions: Sequence[Commission]) -> None:
        if self.poison is not None and any("poison" in commission.prompt for commission in commissions):
            raise self.poison

    def _draw(self, one: Commission) -> Painting:
        return Painting(Image.new("RGB", (one.width, one.height), (one.seed,) * 3), {"encode": 0.1})


@pytest.fixture
def company() -> CompanyPainter:
    return CompanyPainter()


@pytest.fixture
def configure(settings, tmp_path):
    def make(batch: int = MOST, **sections):
        tiny = settings.models["tiny-klein"].model_dump() | {"batch": batch}
        return make_settings(tmp_path / "data", models={"tiny-klein": tiny}, **sections)

    return make


@pytest.fixture
def open_studio(start_daemon, company, configure):
    """Start a daemon that may paint together; the queue is best filled before."""

    async def start(**options):
        return await start_daemon(configure(**options), lambda _: company)

    return start


async def submit_seeds(submit, agent, *seeds: int, **fields):
    return [await submit(agent, seed=seed, **fields) for seed in seeds]


async def count_running(database) -> int:
    return (await database.reader.one("SELECT count(*) AS running FROM jobs WHERE state = 'running'"))["running"]


async def test_equal_jobs_are_painted_in_one_call_and_each_gets_its_own_picture(
    open_studio, make_agent, submit, wait_for, company, settings
):
    agent = await make_agent("alice", concurrent_jobs=9)
    submitted = await submit_seeds(submit, agent, 1, 2, 3, 4)
    await open_studio()
    for job in submitted:
        ended = await wait_for(agent, job.id)
        assert (ended.state, ended.attempts) == (JobState.COMPLETED, 1)
        with Image.open(settings.storage.data_dir / "files" / "outputs" / ended.output.disk_name) as picture:
            assert picture.getpixel((5, 5)) == (ended.seed,) * 3
        assert ended.ran_with == ({"batch": 3} if ended.seed < 4 else {})
    assert company.calls == [(1, 2, 3), (4,)]


@pytest.mark.parametrize("why", ["size", "steps", "reference"])
async def test_the_first_job_that_differs_ends_the_round_and_is_not_overtaken(
    open_studio, make_agent, submit, wait_for, company, references, settings, why
):
    agent = await make_agent("alice", concurrent_jobs=9)
    fields = {"size": {"width": 64}, "steps": {"steps": 3}}.get(why)
    fields = fields or {"reference_images": [await keep_reference(references, settings, agent)]}
    submitted = await submit_seeds(submit, agent, 1, 2)
    submitted += await submit_seeds(submit, agent, 3, **fields)
    submitted += await submit_seeds(submit, agent, 4, 5)
    await open_studio()
    for job in submitted:
        assert (await wait_for(agent, job.id)).state is JobState.COMPLETED
    assert company.calls == [(1, 2), (3,), (4, 5)]


async def test_jobs_with_loras_or_references_never_go_together(make_agent, submit):
    job = await submit(await make_agent("alice"))
    assert go_together(job, replace(job, prompt="other words", seed=7, agent_id=99))
    for change in ({"loras": (("ink", 1.0),)}, {"reference_names": ("a.png",)}):
        assert not go_together(replace(job, **change), replace(job, **change))
    for change in ({"model": "another"}, {"negative": "ugly"}, {"width": 64}, {"height": 64}, {"steps": 3}):
        assert not go_together(job, replace(job, **change))


async def test_agents_take_turns_within_a_batch_as_they_do_without(open_studio, make_agent, submit, wait_for, company):
    alice, bob = await make_agent("alice", concurrent_jobs=9), await make_agent("bob", concurrent_jobs=9)
    submitted = [(alice, job) for job in await submit_seeds(submit, alice, 1, 2, 3, 4)]
    submitted += [(bob, job) for job in await submit_seeds(submit, bob, 11, 12)]
    await open_studio()
    for agent, job in submitted:
        assert (await wait_for(agent, job.id)).state is JobState.COMPLETED
    assert company.calls == [(1, 11, 2), (12, 3, 4)]


@pytest.mark.parametrize(("batch", "most"), [(1, 1), (3, 1)])
async def test_nothing_is_painted_together_where_that_is_off_or_proved_no_faster(
    start_daemon, configure, make_agent, submit, wait_for, company, batch, most
):
    agent = await make_agent("alice", concurrent_jobs=9)
    submitted = await submit_seeds(submit, agent, 1, 2, 3)
    company.most = most
    await start_daemon(configure(batch), lambda _: company)
    for job in submitted:
        assert (await wait_for(agent, job.id)).state is JobState.COMPLETED
    assert company.calls == [(1,), (2,), (3,)]


async def test_a_job_with_attempts_behind_it_is_painted_alone(
    open_studio, make_agent, submit, wait_for, company, database
):
    agent = await make_agent("alice", concurrent_jobs=9)
    submitted = await submit_seeds(submit, agent, 1, 2, 3, 4)
    sql = "UPDATE jobs SET attempts = 1, fence = 1 WHERE id = ?"
    await database.writer.run(lambda c: c.execute(sql, (submitted[1].id,)).rowcount)
    await open_studio()
    for job in submitted:
        assert (await wait_for(agent, job.id)).state is JobState.COMPLETED
    assert company.calls == [(1,), (2,), (3, 4)]


async def test_a_second_batch_is_claimed_while_the_first_is_painted_and_no_third(
    open_studio, make_agent, submit, wait_for, company, database
):
    agent = await make_agent("alice", concurrent_jobs=20)
    submitted = await submit_seeds(submit, agent, *range(1, 10))
    company.hold_together.clear()
    await open_studio()
    await wait_for(agent, submitted[2].id, is_running)
    assert await count_running(database) == 3  # the last step has not come yet
    company.hold_together.set()
    for job in submitted:
        assert (await wait_for(agent, job.id)).attempts == 1
    assert company.calls == [(1, 2, 3), (4, 5, 6), (7, 8, 9)]


async def test_a_cancel_ends_one_of_a_batch_at_its_next_step_and_leaves_the_others_alone(
    open_studio, make_agent, submit, wait_for, company, database
):
    agent = await make_agent("alice", concurrent_jobs=9)
    submitted = await submit_seeds(submit, agent, 1, 2, 3)
    company.hold_together.clear()
    daemon, _ = await open_studio()
    for job in submitted:
        await wait_for(agent, job.id, is_running)
    await request_cancel(database, submitted[0].id)
    daemon._on_hint(submitted[0].id)
    assert (await wait_for(agent, submitted[0].id)).state is JobState.CANCELLED
    assert await count_running(database) == 2
    company.hold_together.set()
    for job in submitted[1:]:
        assert (await wait_for(agent, job.id)).state is JobState.COMPLETED
    assert company.calls == [(1, 2, 3)]


async def test_a_batch_that_nobody_wants_any_more_ends_at_its_next_step(
    open_studio, make_agent, submit, wait_for, company, database
):
    agent = await make_agent("alice", concurrent_jobs=9)
    submitted = await submit_seeds(submit, agent, 1, 2, 3)
    company.hold_together.clear()
    daemon, _ = await open_studio()
    for job in submitted:
        await wait_for(agent, job.id, is_running)
        await request_cancel(database, job.id)
        daemon._on_hint(job.id)
    for job in submitted:
        assert (await wait_for(agent, job.id)).state is JobState.CANCELLED
    (last,) = await submit_seeds(submit, agent, 9)
    assert (await wait_for(agent, last.id)).state is JobState.COMPLETED  # though the hold was never lifted
    assert company.calls == [(1, 2, 3), (9,)]


async def test_a_lost_claim_in_a_batch_is_dropped_and_the_others_complete(
    open_studio, make_agent, submit, wait_for, company, database
):
    agent = await make_agent("alice", concurrent_jobs=9)
    submitted = await submit_seeds(submit, agent, 1, 2, 3)
    company.hold_together.clear()
    daemon, _ = await open_studio()
    for job in submitted:
        await wait_for(agent, job.id, is_running)
    stolen = submitted[1].id
    await database.writer.run(lambda c: c.execute("UPDATE jobs SET fence = 7 WHERE id = ?", (stolen,)).rowcount)
    daemon._on_hint(stolen)
    async with asyncio.timeout(WAIT_S):
        while any(run.job_id == stolen for run in daemon._runs.values()):  # noqa: ASYNC110 - a heartbeat tells it
            await asyncio.sleep(0.01)
    company.hold_together.set()
    for job in (submitted[0], submitted[2]):
        assert (await wait_for(agent, job.id)).state is JobState.COMPLETED
    assert (await wait_for(agent, stolen, is_running)).fence == 7  # still another's


@pytest.mark.parametrize(
    "failure", [ValueError("canary"), RunError(ErrorCode.MODEL_ERROR, "canary", retryable=True), OutOfMemory()]
)
async def test_when_a_batch_fails_each_is_painted_alone_in_the_same_attempt(
    open_studio, make_agent, submit, wait_for, company, failure
):
    agent = await make_agent("alice", concurrent_jobs=9)
    submitted = await submit_seeds(submit, agent, 1, 2, 3)
    company.failure = failure
    with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as logs:
        await open_studio()
        for job in submitted:
            ended = await wait_for(agent, job.id)
            assert (ended.state, ended.attempts, ended.ran_with) == (JobState.COMPLETED, 1, {})
    assert company.calls == [(1, 2, 3), (1,), (2,), (3,)]
    (told,) = [entry for entry in logs if entry["event"] == "batch_failed"]
    assert told["job_ids"] == sorted(job.id for job in submitted)
    assert "job_id" not in told
    assert told["error_type"] == type(failure).__name__
    assert "in paint_together" in told["where"]
    assert "canary" not in str(told)  # it may be the prompt


async def test_so_many_that_ran_out_of_memory_are_not_tried_together_again(
    open_studio, make_agent, submit, wait_for, company
):
    agent = await make_agent("alice", concurrent_jobs=9)
    submitted = await submit_seeds(submit, agent, 1, 2, 3)
    company.failure = OutOfMemory()
    await open_studio()
    for job in submitted:
        await wait_for(agent, job.id)
    submitted = await submit_seeds(submit, agent, 4, 5)
    for job in submitted:
        await wait_for(agent, job.id)
    assert company.calls[4:] == [(4,), (5,)]


async def test_a_poison_job_fails_for_itself_and_costs_its_neighbours_nothing(
    open_studio, make_agent, submit, wait_for, company
):
    agent = await make_agent("alice", concurrent_jobs=9)
    submitted = [await submit(agent, seed=n, prompt="poison" if n == 2 else "a star") for n in (1, 2, 3)]
    company.poison = ValueError("whatever it is")
    await open_studio()
    ended = [await wait_for(agent, job.id) for job in submitted]
    assert [job.error_code for job in ended] == [None, "model_error", None]
    assert [job.attempts for job in ended] == [1, 1, 1]


async def test_a_device_lost_in_a_batch_is_held_against_none_of_it_and_each_then_runs_alone(
    open_studio, make_agent, submit, wait_for, company, database
):
    agent = await make_agent("alice", concurrent_jobs=9)
    submitted = [await submit(agent, seed=n, prompt="poison" if n == 2 else "a star") for n in (1, 2, 3)]
    company.poison = DeviceLost("CUDA error")
    for _ in range(3):  # as systemd would start it again
        _, task = await open_studio()
        assert await asyncio.wait_for(task, WAIT_S) == 1
    await open_studio()
    ended = [await wait_for(agent, job.id) for job in submitted]
    assert [job.state for job in ended] == [JobState.COMPLETED, JobState.FAILED, JobState.COMPLETED]
    assert [job.attempts for job in ended] == [2, 3, 2]
    assert company.calls == [(1, 2, 3), (1,), (2,), (2,), (3,)]


async def test_a_batch_past_its_deadline_ends_the_process_and_no_job_of_it(
    open_studio, make_agent, submit, wait_for, company
):
    agent = await make_agent("alice", concurrent_jobs=9)
    submitted = await submit_seeds(submit, agent, 1, 2, 3)
    company.hung.clear()
    _, task = await open_studio(jobs={"deadline_s": 0.3})
    assert await asyncio.wait_for(task, WAIT_S) == 1
    company.hung.set()
    back = [await wait_for(agent, job.id, lambda job: job.state is JobState.QUEUED) for job in submitted]
    assert any(job.attempts == 1 for job in back)
    await open_studio()
    for job in submitted:
        assert (await wait_for(agent, job.id)).state is JobState.COMPLETED


async def test_stopping_lets_a_batch_finish_or_gives_all_of_it_back(open_studio, make_agent, submit, wait_for, company):
    agent = await make_agent("alice", concurrent_jobs=9)
    for grace_s in (WAIT_S, 0.1):
        submitted = await submit_seeds(submit, agent, 1, 2, 3)
        company.hold_together.clear()
        daemon, task = await open_studio(infer={"stop_grace_s": grace_s})
        for job in submitted:
            await wait_for(agent, job.id, is_running)
        daemon.stop()
        if grace_s == WAIT_S:
            company.hold_together.set()
        assert await asyncio.wait_for(task, WAIT_S) == 0
        company.hold_together.set()
        expected = (JobState.COMPLETED, 1) if grace_s == WAIT_S else (JobState.QUEUED, 0)
        for job in submitted:
            left = await wait_for(agent, job.id, lambda _: True)
            assert (left.state, left.attempts) == expected


async def test_progress_of_each_of_a_batch_is_written(open_studio, make_agent, submit, wait_for, company):
    agent = await make_agent("alice", concurrent_jobs=9)
    submitted = await submit_seeds(submit, agent, 1, 2, 3)
    company.hold_together.clear()
    await open_studio()
    for job in submitted:
        assert (await wait_for(agent, job.id, lambda job: job.step == 1)).state is JobState.RUNNING
    company.hold_together.set()


async def test_the_web_tier_is_told_of_a_claim_and_of_each_step_that_is_written(
    start_daemon, make_agent, submit, wait_for, painter, settings
):
    heard: list[str] = []
    api = Wakeup(settings.storage.data_dir, Listener.API, "test")
    api.listen(heard.append)
    painter.hold.clear()
    agent = await make_agent("alice")
    job = await submit(agent)
    await start_daemon()
    await wait_for(agent, job.id, lambda job: job.step == 1)
    async with asyncio.timeout(WAIT_S):
        while heard.count(job.id) < 2:  # noqa: ASYNC110 - the socket fills it
            await asyncio.sleep(0.01)
    painter.hold.set()
    await wait_for(agent, job.id)
    api.close()


async def test_one_that_cannot_begin_holds_up_nobody_who_would_be_painted_with_it(
    open_studio, make_agent, submit, wait_for, company, database
):
    agent = await make_agent("alice", concurrent_jobs=9)
    (busy,) = await submit_seeds(submit, agent, 1, steps=2)
    submitted = await submit_seeds(submit, agent, 2, 3, 4)
    company.hold.clear()
    daemon, _ = await open_studio()
    await wait_for(agent, busy.id, is_running)
    for job in submitted:  # claimed ahead
        await wait_for(agent, job.id, is_running)
    cancelled = submitted[1].id
    await request_cancel(database, cancelled)
    daemon._on_hint(cancelled)
    (held,) = [run for run in daemon._runs.values() if run.job_id == cancelled]
    async with asyncio.timeout(WAIT_S):
        while held.lease.stop_reason is None:  # noqa: ASYNC110 - a heartbeat tells it
            await asyncio.sleep(0.01)
    company.hold.set()
    ended = [await wait_for(agent, job.id) for job in submitted]
    assert [job.state for job in ended] == [JobState.COMPLETED, JobState.CANCELLED, JobState.COMPLETED]
    assert company.calls == [(1,), (2, 4)]
