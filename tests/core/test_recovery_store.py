from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
import structlog

from tests.conftest import FakeClock
from tests.core.test_claim_store import (
    alice,  # noqa: F401 - a fixture
    ask_for_cancel,
    claim,
    count_pins,
    job_id,  # noqa: F401 - a fixture
    look,
    nobody_can_write,
    submit,
)
from umrgen_core.agents import Agent
from umrgen_core.claim_store import ClaimStore
from umrgen_core.config import Settings
from umrgen_core.database import Database
from umrgen_core.job_store import JobStore
from umrgen_core.jobs import JobState
from umrgen_core.recovery_store import Recovered, RecoveryStore


def tell(recovered: Sequence[Recovered]) -> list[tuple[str, JobState, str]]:
    return [(one.job_id, one.state, one.reason) for one in recovered]


async def test_a_lease_lasts_as_long_as_heartbeats_renew_it(
    claims: ClaimStore,
    recovery: RecoveryStore,
    job_id: str,  # noqa: F811
    clock: FakeClock,
) -> None:
    claimed = await claim(claims)
    for _ in range(10):
        clock.advance(30)
        assert await recovery.recover_lost() == ()
        await claims.heartbeat(claimed)
    clock.advance(30)
    await claims.put_progress(claimed, 1)  # progress is no heartbeat
    clock.advance(0.001)
    assert tell(await recovery.recover_lost()) == [(job_id, JobState.QUEUED, "worker_lost")]


async def test_the_log_of_a_recovery_says_whose_job_it_was(
    claims: ClaimStore,
    recovery: RecoveryStore,
    alice: Agent,  # noqa: F811
    job_id: str,  # noqa: F811
    clock: FakeClock,
) -> None:
    await claim(claims)
    clock.advance(30.001)
    with structlog.testing.capture_logs() as logs:
        await recovery.recover_lost()
    told = [(one["job_id"], one["agent"], one["fence"]) for one in logs if one["event"] == "job_recovered"]
    assert told == [(job_id, alice.name, 1)]


async def test_a_lost_job_keeps_its_attempt_and_its_references(
    database: Database,
    jobs: JobStore,
    claims: ClaimStore,
    recovery: RecoveryStore,
    alice: Agent,  # noqa: F811
    job_id: str,  # noqa: F811
    clock: FakeClock,
) -> None:
    await claim(claims)
    clock.advance(31)
    await recovery.recover_lost()
    job = await look(jobs, alice, job_id)
    assert (job.state, job.attempts, job.fence) == (JobState.QUEUED, 1, 1)
    assert await count_pins(database) == 1


async def test_a_lease_of_another_boot_is_over_at_once(
    claims: ClaimStore,
    recovery: RecoveryStore,
    job_id: str,  # noqa: F811
    clock: FakeClock,
) -> None:
    await claim(claims)
    clock.reboot()
    assert tell(await recovery.recover_lost()) == [(job_id, JobState.QUEUED, "worker_lost")]


@pytest.mark.parametrize("leap_us", [-(10**15), 10**15])
async def test_a_leap_of_the_wall_clock_changes_nothing_about_leases_and_queues(
    jobs: JobStore,
    claims: ClaimStore,
    recovery: RecoveryStore,
    alice: Agent,  # noqa: F811
    job_id: str,  # noqa: F811
    clock: FakeClock,
    leap_us: int,
) -> None:
    claimed = await claim(claims)
    await submit(jobs, alice)
    clock.wall += leap_us
    assert await recovery.recover_lost() == ()
    assert not await claims.heartbeat(claimed)
    clock.advance(31)
    assert tell(await recovery.recover_lost()) == [(job_id, JobState.QUEUED, "worker_lost")]


async def test_a_job_whose_attempts_are_used_up_fails(
    database: Database,
    jobs: JobStore,
    claims: ClaimStore,
    recovery: RecoveryStore,
    alice: Agent,  # noqa: F811
    job_id: str,  # noqa: F811
    clock: FakeClock,
) -> None:
    for state in (JobState.QUEUED, JobState.QUEUED, JobState.FAILED):
        await claim(claims)
        clock.advance(31)
        assert tell(await recovery.recover_lost()) == [(job_id, state, "worker_lost")]
    job = await look(jobs, alice, job_id)
    assert (job.error_code, job.retryable, job.attempts) == ("worker_lost", True, 3)
    assert await count_pins(database) == 0


async def test_a_lost_job_that_was_to_be_cancelled_is_cancelled(
    database: Database,
    claims: ClaimStore,
    recovery: RecoveryStore,
    job_id: str,  # noqa: F811
    clock: FakeClock,
) -> None:
    await claim(claims)
    await ask_for_cancel(database, job_id)
    clock.advance(31)
    assert tell(await recovery.recover_lost()) == [(job_id, JobState.CANCELLED, "cancel requested")]
    assert await count_pins(database) == 0


async def test_a_job_that_waited_too_long_fails_and_says_so(
    database: Database,
    jobs: JobStore,
    recovery: RecoveryStore,
    alice: Agent,  # noqa: F811
    job_id: str,  # noqa: F811
    clock: FakeClock,
) -> None:
    clock.advance(86_400)
    assert await recovery.recover_lost() == ()
    clock.advance(0.001)
    assert tell(await recovery.recover_lost()) == [(job_id, JobState.FAILED, "timeout")]
    job = await look(jobs, alice, job_id)
    assert (job.error_code, job.retryable, job.started_at_us) == ("timeout", True, None)
    assert await count_pins(database) == 0


async def test_a_job_that_comes_back_gets_a_whole_time_in_the_queue(
    claims: ClaimStore,
    recovery: RecoveryStore,
    job_id: str,  # noqa: F811
    clock: FakeClock,
) -> None:
    clock.advance(86_399)
    await claims.give_back(await claim(claims))
    clock.advance(86_399)
    assert await recovery.recover_lost() == ()


async def test_a_reboot_starts_the_time_in_the_queue_anew(
    recovery: RecoveryStore,
    job_id: str,  # noqa: F811
    clock: FakeClock,
) -> None:
    clock.boot = 10**12  # a long boot: without adoption its deadlines would never come in the next one
    clock.reboot()
    await recovery.adopt_queue()
    clock.advance(86_400)
    assert await recovery.recover_lost() == ()
    clock.advance(0.001)
    assert tell(await recovery.recover_lost()) == [(job_id, JobState.FAILED, "timeout")]


async def test_two_processes_that_recover_at_once_do_it_once(
    claims: ClaimStore,
    recovery: RecoveryStore,
    job_id: str,  # noqa: F811
    clock: FakeClock,
) -> None:
    await claim(claims)
    clock.advance(31)
    first, second = await asyncio.gather(recovery.recover_lost(), recovery.recover_lost())
    assert tell([*first, *second]) == [(job_id, JobState.QUEUED, "worker_lost")]


async def test_recovery_that_finds_nothing_takes_no_write_lock(
    settings: Settings,
    jobs: JobStore,
    claims: ClaimStore,
    recovery: RecoveryStore,
    alice: Agent,  # noqa: F811
) -> None:
    await submit(jobs, alice)
    await claim(claims)
    with nobody_can_write(settings):
        assert await recovery.recover_lost() == ()
        await recovery.adopt_queue()
