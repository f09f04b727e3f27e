from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.conftest import FakeClock
from umrgen_core.agents import Agent
from umrgen_core.claim_store import ClaimStore
from umrgen_core.config import Settings
from umrgen_core.database import Database
from umrgen_core.errors import StaleClaim, Unavailable
from umrgen_core.job_ends import NewOutput
from umrgen_core.job_store import JobStore
from umrgen_core.jobs import Claim, ErrorCode, Job, JobState
from umrgen_core.lock import LOCK_NAME
from umrgen_core.names import new_job_id, new_output_filename, output_disk_name
from umrgen_core.recovery_store import RecoveryStore
from umrgen_core.requests import AcceptedRequest

MODEL = "tiny-klein"
MakeAgent = Callable[..., Awaitable[Agent]]
Act = Callable[[ClaimStore, Claim], Awaitable[Any]]


async def submit(jobs: JobStore, agent: Agent, *names: str, model: str = MODEL) -> str:
    request = AcceptedRequest(model, "a star", "", 64, 64, 4, 1, names, ())
    job, _ = await jobs.enqueue(agent, new_job_id(), request, "r")
    return job.id


async def claim(claims: ClaimStore, worker: str = "w1") -> Claim:
    claimed = await claims.claim_next(MODEL, worker)
    assert claimed is not None
    return claimed


def picture(claim: Claim) -> NewOutput:
    return NewOutput(new_output_filename(), output_disk_name(claim.job_id, claim.fence), 64, 64, 1000, "0" * 64)


async def complete(claims: ClaimStore, claimed: Claim) -> str:
    output = picture(claimed)
    await claims.complete(claimed, output, {"total": 2.0}, 2.0)
    return output.filename


async def look(jobs: JobStore, agent: Agent, job_id: str) -> Job:
    job = await jobs.find(agent, job_id)
    assert job is not None
    return job


async def ask_for_cancel(database: Database, job_id: str) -> None:
    sql = "UPDATE jobs SET cancel_requested_at_us = 1 WHERE id = ?"
    await database.writer.run(lambda c: c.execute(sql, [job_id]).fetchall())


async def dump(database: Database, *tables: str) -> list[tuple[Any, ...]]:
    tables = tables or ("jobs", "outputs", "job_references", "agents", "run_times")
    return [tuple(row) for table in tables for row in await database.reader.all(f'SELECT * FROM "{table}"')]


async def count_pins(database: Database) -> int:
    return len(await dump(database, "job_references"))


@contextmanager
def nobody_can_write(settings: Settings) -> Iterator[None]:
    fd = os.open(settings.storage.data_dir / LOCK_NAME, os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(fd)


@pytest.fixture
async def alice(make_agent: MakeAgent) -> Agent:
    return await make_agent("alice", concurrent_jobs=1000)


@pytest.fixture
async def job_id(jobs: JobStore, claims: ClaimStore, alice: Agent) -> str:
    """A queued job that pins the output of an earlier one."""
    await submit(jobs, alice)
    filename = await complete(claims, await claim(claims))
    return await submit(jobs, alice, filename)


# Fair order


async def test_agents_take_turns_and_each_ones_jobs_keep_their_order(
    jobs: JobStore, claims: ClaimStore, make_agent: MakeAgent, clock: FakeClock
) -> None:
    agents = {name: await make_agent(name, concurrent_jobs=9) for name in "abc"}
    names: dict[str, str] = {}
    for place, name in enumerate("aaabbc"):
        clock.wall -= 10**9  # a clock that runs backwards changes no order
        names[await submit(jobs, agents[name])] = f"{name}{place}"
    order = [names[(await claim(claims)).job_id] for _ in names]
    assert order == ["a0", "b3", "c5", "a1", "b4", "a2"]
    assert await claims.claim_next(MODEL, "w1") is None


async def test_a_hundred_jobs_of_one_agent_never_hold_up_anothers(
    jobs: JobStore, claims: ClaimStore, alice: Agent, make_agent: MakeAgent
) -> None:
    await asyncio.gather(*(submit(jobs, alice) for _ in range(100)))
    for _ in range(3):
        await claim(claims)
    bob = await make_agent("bob", concurrent_jobs=2)
    late = [await submit(jobs, bob), await submit(jobs, bob)]
    # What counts is who was served last, not how often: who comes late catches nothing up.
    assert [(await claim(claims)).job_id in late for _ in range(4)] == [True, False, True, False]


async def test_a_job_of_another_model_is_left_alone(jobs: JobStore, claims: ClaimStore, alice: Agent) -> None:
    await submit(jobs, alice, model="other")
    assert await claims.claim_next(MODEL, "w1") is None


async def test_a_job_is_claimed_once_however_many_workers_want_it(
    jobs: JobStore, claims: ClaimStore, alice: Agent
) -> None:
    queued = {await submit(jobs, alice) for _ in range(5)}
    got = await asyncio.gather(*(claims.claim_next(MODEL, f"w{n}") for n in range(20)))
    assert sorted(one.job_id for one in got if one) == sorted(queued)


# Several models


async def test_agents_take_turns_over_all_the_models_that_a_worker_claims_from(
    jobs: JobStore, claims: ClaimStore, make_agent: MakeAgent
) -> None:
    agents = {name: await make_agent(name, concurrent_jobs=9) for name in "abc"}
    names: dict[str, str] = {}
    for name, model in ("a1", "a2", "a1", "b2", "c1", "c1", "b1"):  # agent and model
        names[await submit(jobs, agents[name], model=model)] = f"{name}{model}{len(names)}"
    order = []
    while (claimed := await claims.claim_from(("2", "1"), "w1")) is not None:
        order.append(names[claimed.job_id])
    assert order == ["a10", "b23", "c14", "a21", "b16", "c15", "a12"]


async def test_only_the_models_that_are_asked_for_are_claimed(jobs: JobStore, claims: ClaimStore, alice: Agent) -> None:
    ours = await submit(jobs, alice, model="ours")
    theirs = await submit(jobs, alice, model="theirs")
    assert await claims.claim_from((), "w1") is None
    claimed = [await claims.claim_from(("ours", "other"), "w1"), await claims.claim_from(("theirs",), "w2")]
    assert [one and one.job_id for one in claimed] == [ours, theirs]


async def test_a_job_with_attempts_behind_it_is_not_claimed_ahead(
    jobs: JobStore, claims: ClaimStore, recovery: RecoveryStore, alice: Agent, job_id: str, clock: FakeClock
) -> None:
    await claim(claims)
    clock.advance(31)
    await recovery.recover_lost()
    await submit(jobs, alice)
    assert await claims.find_waiting((MODEL,)) is None
    assert await claims.claim_from((MODEL,), "w1", fresh=True) is None
    assert (await claim(claims)).job_id == job_id
    fresh = await claims.claim_from((MODEL,), "w1", fresh=True)
    assert fresh is not None
    assert fresh.job.attempts == 1


async def test_the_likely_next_job_is_seen_with_its_references_and_left_as_it_is(
    database: Database, claims: ClaimStore, job_id: str
) -> None:
    before = await dump(database)
    waiting = await claims.find_waiting((MODEL, "other"))
    assert waiting is not None
    assert (waiting.job.id, waiting.job.state, len(waiting.pins)) == (job_id, JobState.QUEUED, 1)
    assert await dump(database) == before
    assert (await claim(claims)).pins == waiting.pins
    assert await claims.find_waiting((MODEL, "other")) is None


async def test_how_long_each_model_has_been_waited_for_is_told_in_boot_time(
    jobs: JobStore, claims: ClaimStore, alice: Agent, clock: FakeClock
) -> None:
    assert await claims.list_waiting_s() == {}
    for model in ("b", "a", "b"):
        await submit(jobs, alice, model=model)
        clock.advance(5)
        clock.wall -= 10**9
    assert await claims.list_waiting_s() == {"a": 10.0, "b": 15.0}
    first = await claims.claim_from(("b",), "w1")
    assert await claims.list_waiting_s() == {"a": 10.0, "b": 5.0}
    assert first is not None
    await claims.give_back(first)
    clock.advance(1)
    assert await claims.list_waiting_s() == {"a": 11.0, "b": 6.0}


# Claims, fences and ends


async def test_each_claim_raises_fence_and_attempts(
    jobs: JobStore, claims: ClaimStore, recovery: RecoveryStore, alice: Agent, job_id: str, clock: FakeClock
) -> None:
    for number in (1, 2, 3):
        claimed = await claim(claims, f"w{number}")
        assert (claimed.fence, claimed.job.attempts) == (number, number)
        assert (claimed.job.state, claimed.job.worker_id) == (JobState.RUNNING, f"w{number}")
        assert claimed.job.started_at_us == clock.wall
        assert len(claimed.pins) == 1
        clock.advance(31)
        await recovery.recover_lost()
    assert (await look(jobs, alice, job_id)).state == JobState.FAILED


WRITES: dict[str, Act] = {
    "heartbeat": lambda claims, claimed: claims.heartbeat(claimed),
    "put_progress": lambda claims, claimed: claims.put_progress(claimed, 3),
    "complete": complete,
    "fail": lambda claims, claimed: claims.fail(claimed, ErrorCode.MODEL_ERROR, "It broke.", retryable=True),
    "give_back": lambda claims, claimed: claims.give_back(claimed),
    "lose_device": lambda claims, claimed: claims.lose_device(claimed),
    "acknowledge_cancel": lambda claims, claimed: claims.acknowledge_cancel(claimed),
}


@pytest.mark.parametrize("write", WRITES)
async def test_a_worker_that_slept_through_its_lease_changes_nothing(
    database: Database, claims: ClaimStore, recovery: RecoveryStore, job_id: str, clock: FakeClock, write: str
) -> None:
    asleep = await claim(claims, "asleep")
    clock.advance(31)
    await recovery.recover_lost()
    awake = await claim(claims, "awake")
    if write == "acknowledge_cancel":
        await ask_for_cancel(database, job_id)
    before = await dump(database)
    with pytest.raises(StaleClaim):
        await WRITES[write](claims, asleep)
    assert await dump(database) == before
    await WRITES[write](claims, awake)
    assert await dump(database) != before or write == "heartbeat"  # same lease: the clock stands still


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("end", ["complete", "fail"])
async def test_a_job_that_has_ended_takes_no_more_writes(
    database: Database, claims: ClaimStore, job_id: str, end: str, write: str
) -> None:
    claimed = await claim(claims)
    await WRITES[end](claims, claimed)
    before = await dump(database)
    with pytest.raises(StaleClaim):
        await WRITES[write](claims, claimed)
    assert await dump(database) == before


async def test_a_completed_job_has_its_picture_and_frees_its_references(
    database: Database, jobs: JobStore, claims: ClaimStore, alice: Agent, job_id: str, clock: FakeClock
) -> None:
    claimed = await claim(claims)
    assert await claims.find_completed(claimed) is None
    filename = await complete(claims, claimed)
    job = await look(jobs, alice, job_id)
    assert (job.state, job.step, job.timings, job.finished_at_us) == ("completed", 4, {"total": 2.0}, clock.wall)
    assert job.expires_at_us == clock.wall + 7 * 86_400 * 10**6
    assert job.output is not None
    assert job.output.filename == filename
    assert job.output.expires_at_us == job.expires_at_us
    assert await claims.find_completed(claimed) == job.output.disk_name == output_disk_name(job_id, 1)
    assert await count_pins(database) == 0


async def test_a_failed_job_has_its_reason_and_frees_its_references(
    database: Database, jobs: JobStore, claims: ClaimStore, alice: Agent, job_id: str
) -> None:
    await claims.fail(await claim(claims), ErrorCode.MODEL_ERROR, "It broke.", retryable=False)
    job = await look(jobs, alice, job_id)
    assert (job.state, job.error_code, job.error, job.retryable) == ("failed", "model_error", "It broke.", False)
    assert await count_pins(database) == 0


async def test_a_cancel_that_was_asked_for_is_heard_and_then_only_acknowledged(
    database: Database, jobs: JobStore, claims: ClaimStore, alice: Agent, job_id: str
) -> None:
    claimed = await claim(claims)
    assert not await claims.heartbeat(claimed)
    assert not await claims.put_progress(claimed, 1)
    with pytest.raises(StaleClaim):
        await claims.acknowledge_cancel(claimed)
    await ask_for_cancel(database, job_id)
    assert await claims.heartbeat(claimed)
    assert await claims.put_progress(claimed, 2)
    before = await dump(database)
    for write in ("complete", "fail", "give_back", "lose_device"):
        with pytest.raises(StaleClaim):
            await WRITES[write](claims, claimed)
    assert await dump(database) == before
    await claims.acknowledge_cancel(claimed)
    job = await look(jobs, alice, job_id)
    assert (job.state, job.step, job.output) == (JobState.CANCELLED, 2, None)
    assert await count_pins(database) == 0


async def test_giving_back_undoes_the_attempt_but_keeps_the_fence(
    database: Database, jobs: JobStore, claims: ClaimStore, alice: Agent, job_id: str
) -> None:
    claimed = await claim(claims)
    await claims.put_progress(claimed, 3)
    await claims.give_back(claimed)
    job = await look(jobs, alice, job_id)
    assert (job.state, job.attempts, job.fence) == (JobState.QUEUED, 0, 1)
    assert (job.step, job.started_at_us, job.worker_id) == (0, None, None)
    assert await count_pins(database) == 1
    again = await claim(claims)
    assert (again.job.attempts, again.fence) == (1, 2)


async def test_a_job_that_costs_the_device_twice_is_not_run_a_third_time(
    database: Database, jobs: JobStore, claims: ClaimStore, alice: Agent, job_id: str
) -> None:
    await claims.lose_device(await claim(claims))
    job = await look(jobs, alice, job_id)
    assert (job.state, job.attempts) == (JobState.QUEUED, 1)
    await claims.lose_device(await claim(claims))
    job = await look(jobs, alice, job_id)
    assert (job.state, job.error_code, job.retryable, job.attempts) == ("failed", "model_error", False, 2)
    assert "The device failed in 2 runs of this job" in (job.error or "")
    assert await count_pins(database) == 0


async def test_attempts_that_ended_otherwise_are_not_held_against_a_job_that_costs_the_device_once(
    jobs: JobStore, claims: ClaimStore, alice: Agent, job_id: str
) -> None:
    for _ in range(2):
        await claims.release(await claim(claims), "The picture could not be saved")
    await claims.lose_device(await claim(claims))
    job = await look(jobs, alice, job_id)
    assert (job.state, job.error_code, job.retryable) == (JobState.FAILED, "worker_lost", True)


async def test_a_job_that_is_expected_is_claimed_without_a_look_before(
    database: Database, jobs: JobStore, claims: ClaimStore, alice: Agent
) -> None:
    submitted = await submit(jobs, alice)
    database.reader.refuse("Nobody may look.")
    assert [one.job_id for one in await claims.claim_several((MODEL,), "w1", expected=True)] == [submitted]
    assert await claims.claim_several((MODEL,), "w1", expected=True) == []


@pytest.mark.parametrize("expected", [False, True])
async def test_nothing_is_claimed_while_the_disk_is_nearly_full(
    settings: Settings, database: Database, jobs: JobStore, alice: Agent, expected: bool
) -> None:
    low = settings.storage.model_copy(update={"disk_floor_bytes": 2**60})
    claims = ClaimStore(database, settings.model_copy(update={"storage": low}))
    assert await claims.claim_several((MODEL,), "w1", expected=expected) in ([], ())
    submitted = await submit(jobs, alice)
    with pytest.raises(Unavailable, match="disk"):
        await claims.claim_several((MODEL,), "w1", expected=expected)
    job = await look(jobs, alice, submitted)
    assert (job.state, job.attempts, job.fence) == (JobState.QUEUED, 0, 0)


async def test_an_idle_worker_takes_no_write_lock(
    settings: Settings, jobs: JobStore, claims: ClaimStore, alice: Agent
) -> None:
    await submit(jobs, alice)
    await claim(claims)
    with nobody_can_write(settings):
        assert await claims.claim_next(MODEL, "w1") is None
