from __future__ import annotations

import pytest

from tests.conftest import FakeClock
from tests.core.test_claim_store import MODEL, alice, claim, complete, submit  # noqa: F401 - alice is a fixture
from tests.core.test_job_store import find_place
from umrgen_core.agents import Agent
from umrgen_core.claim_store import ClaimStore
from umrgen_core.database import Database
from umrgen_core.errors import Unavailable
from umrgen_core.job_store import JobStore, Submission
from umrgen_core.names import new_job_id
from umrgen_core.queue_control import QueueControl, QueueState
from umrgen_core.recovery_store import RecoveryStore
from umrgen_core.requests import AcceptedRequest

REQUEST = AcceptedRequest(MODEL, "a star", "", 64, 64, 4, 1, (), ())


@pytest.fixture
def control(database: Database) -> QueueControl:
    return QueueControl(database)


async def test_each_state_keeps_the_time_when_it_began_until_the_queue_is_resumed(
    control: QueueControl, clock: FakeClock
) -> None:
    assert await control.read() == QueueState(None, None)
    began = clock.wall
    assert await control.pause() == QueueState(began, None)
    clock.advance(5)
    assert await control.drain() == QueueState(began, clock.wall)
    clock.advance(5)
    state = await control.pause()
    assert state == await control.drain() == await control.read() == QueueState(began, began + 5_000_000)
    assert state.paused
    assert state.draining
    assert await control.resume() == await control.read() == QueueState(None, None)


@pytest.mark.parametrize("ahead", [False, True])
async def test_a_paused_queue_accepts_jobs_and_gives_none_away(
    control: QueueControl,
    jobs: JobStore,
    claims: ClaimStore,
    alice: Agent,  # noqa: F811
    *,
    ahead: bool,
) -> None:
    await control.pause()
    job_id = await submit(jobs, alice)
    assert await claims.claim_from((MODEL,), "w1", fresh=ahead) is None
    assert await claims.find_waiting((MODEL,)) is None
    await control.resume()
    claimed = await claims.claim_from((MODEL,), "w1", fresh=ahead)
    assert claimed is not None
    assert claimed.job_id == job_id


async def test_a_pause_that_comes_between_look_and_claim_still_holds(
    database: Database,
    control: QueueControl,
    jobs: JobStore,
    claims: ClaimStore,
    alice: Agent,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await submit(jobs, alice)
    look = claims._find_head

    async def look_then_pause(models: object) -> object:
        head = await look((MODEL,))
        assert head is not None
        await control.pause()
        return head

    monkeypatch.setattr(claims, "_find_head", look_then_pause)
    assert await claims.claim_next(MODEL, "w1") is None


async def test_a_run_that_had_begun_ends_in_a_paused_queue(
    control: QueueControl,
    jobs: JobStore,
    claims: ClaimStore,
    alice: Agent,  # noqa: F811
) -> None:
    job_id = await submit(jobs, alice)
    claimed = await claim(claims)
    await control.pause()
    await claims.put_progress(claimed, 2)
    await complete(claims, claimed)
    job = await jobs.find(alice, job_id)
    assert job is not None
    assert job.state == "completed"


async def test_time_in_a_paused_queue_counts(
    control: QueueControl,
    jobs: JobStore,
    recovery: RecoveryStore,
    alice: Agent,  # noqa: F811
    clock: FakeClock,
) -> None:
    job_id = await submit(jobs, alice)
    await control.pause()
    clock.advance(86_401)
    (recovered,) = await recovery.recover_lost()
    assert (recovered.job_id, recovered.state, recovered.reason) == (job_id, "failed", "timeout")


async def test_nobody_is_told_when_a_paused_queue_will_have_come_to_a_job(
    control: QueueControl,
    jobs: JobStore,
    claims: ClaimStore,
    alice: Agent,  # noqa: F811
) -> None:
    await submit(jobs, alice)
    await complete(claims, await claim(claims))
    job = await jobs.find(alice, await submit(jobs, alice))
    assert job is not None
    before = await find_place(jobs, job)
    assert (before.position, before.eta_s) == (1, 2.0)
    await control.pause()
    paused = await find_place(jobs, job)
    assert (paused.position, paused.eta_s) == (1, None)


async def test_a_draining_queue_accepts_nothing_and_is_worked_off(
    control: QueueControl,
    jobs: JobStore,
    claims: ClaimStore,
    alice: Agent,  # noqa: F811
) -> None:
    job_id = await submit(jobs, alice)
    await control.drain()
    with pytest.raises(Unavailable, match="run empty") as refused:
        await submit(jobs, alice, "no-such-picture.png")
    assert refused.value.retry_after_s == 30
    assert (await claim(claims)).job_id == job_id
    await control.resume()
    await submit(jobs, alice)


async def test_what_was_accepted_before_is_answered_again_while_the_queue_drains(
    control: QueueControl,
    jobs: JobStore,
    alice: Agent,  # noqa: F811
) -> None:
    def submission(key: str) -> Submission:
        return Submission(key, "0" * 64, lambda job, position: {"job_id": job.id, "position": position})

    async def send(key: str) -> tuple[dict[str, object], bool]:
        replay = await jobs.enqueue_once(alice, new_job_id(), REQUEST, "r", submission(key))
        return replay.answer, replay.first

    first = await send("k1")
    await control.drain()
    assert await send("k1") == (first[0], False)
    with pytest.raises(Unavailable):
        await send("k2")
