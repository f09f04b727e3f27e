"""The outbox: a row is there when the job has ended, and stays until somebody has told of it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

import pytest

from tests.conftest import FakeClock
from tests.core.test_job_store import paint, submit
from umrgen_core.agents import Agent
from umrgen_core.cancellation import Cancellation
from umrgen_core.claim_store import ClaimStore
from umrgen_core.config import Settings
from umrgen_core.database import Database
from umrgen_core.errors import AccountError
from umrgen_core.job_store import JobStore
from umrgen_core.recovery_store import RecoveryStore
from umrgen_core.retention_store import RetentionStore
from umrgen_core.webhook_store import WebhookState, WebhookStore

URL = "https://agent.example/hook"
LEASE_S = 25.0
MakeAgent = Callable[..., Awaitable[Agent]]


@pytest.fixture
def webhooks(database: Database) -> WebhookStore:
    return WebhookStore(database)


@pytest.fixture
async def alice(make_agent: MakeAgent) -> Agent:
    return await make_agent("alice", concurrent_jobs=1000)


@pytest.fixture
def cancellation(database: Database, settings: Settings) -> Cancellation:
    return Cancellation(database, settings.storage.retention_s)


async def rows(database: Database) -> list[dict]:
    return [dict(row) for row in await database.reader.all("SELECT * FROM webhooks ORDER BY seq")]


async def ended_job(jobs: JobStore, cancellation: Cancellation, agent: Agent) -> str:
    """A job that is over, and whose agent wants to be told."""
    job, _ = await submit(jobs, agent, callback_url=URL)
    await cancellation.cancel(agent, job.id)
    return job.id


async def test_every_kind_of_end_leaves_one_row_and_nothing_before_it(
    database: Database,
    jobs: JobStore,
    claims: ClaimStore,
    recovery: RecoveryStore,
    cancellation: Cancellation,
    alice: Agent,
    clock: FakeClock,
) -> None:
    done, _ = await submit(jobs, alice, callback_url=URL)
    assert done.callback_url == URL
    assert await rows(database) == []
    await paint(claims)
    failed, _ = await submit(jobs, alice, callback_url=URL)
    claim = await claims.claim_next("tiny-klein", "w")
    assert claim is not None
    assert len(await rows(database)) == 1
    await claims.fail(claim, "model_error", "no", retryable=False)
    dropped = await ended_job(jobs, cancellation, alice)
    late, _ = await submit(jobs, alice, callback_url=URL)
    clock.advance(86_401)
    await recovery.recover_lost()
    told = await rows(database)
    assert [row["job_id"] for row in told] == [done.id, failed.id, dropped, late.id]
    assert {(row["state"], row["attempts"], row["due_boot_ms"]) for row in told} == {("due", 0, 0)}


async def test_a_job_without_a_callback_leaves_no_row(
    database: Database, jobs: JobStore, claims: ClaimStore, alice: Agent
) -> None:
    await submit(jobs, alice)
    await paint(claims)
    assert await rows(database) == []


async def test_a_lost_and_requeued_job_is_told_of_once(
    database: Database, jobs: JobStore, claims: ClaimStore, recovery: RecoveryStore, alice: Agent, clock: FakeClock
) -> None:
    await submit(jobs, alice, callback_url=URL)
    for _ in range(3):
        assert await claims.claim_next("tiny-klein", "w") is not None
        clock.advance(31)
        await recovery.recover_lost()
    assert len(await rows(database)) == 1


async def test_the_end_and_its_row_are_one_transaction(
    database: Database, jobs: JobStore, cancellation: Cancellation, alice: Agent
) -> None:
    job, _ = await submit(jobs, alice, callback_url=URL)

    def end_and_fail(connection) -> None:
        cancellation._cancel(connection, alice, job.id)
        assert connection.execute("SELECT count(*) FROM webhooks").fetchone()[0] == 1
        raise KeyError("undone")

    with pytest.raises(KeyError):
        await database.writer.run(end_and_fail)
    assert await rows(database) == []
    assert (await jobs.find(alice, job.id)).state == "queued"


async def test_a_claim_is_nobody_elses_until_its_lease_is_over(
    jobs: JobStore, cancellation: Cancellation, webhooks: WebhookStore, alice: Agent, clock: FakeClock
) -> None:
    job_id = await ended_job(jobs, cancellation, alice)
    assert await webhooks.list_waiting_agents() == [alice.id]
    (first,) = await webhooks.claim({alice.id: 5}, LEASE_S)
    assert (first.job.id, first.callback_url, first.attempts, first.job.state) == (job_id, URL, 1, "cancelled")
    assert await webhooks.list_waiting_agents() == []
    assert await webhooks.claim({alice.id: 5}, LEASE_S) == []
    clock.advance(LEASE_S + 0.001)
    (second,) = await webhooks.claim({alice.id: 5}, LEASE_S)
    assert second.attempts == 2
    await webhooks.end(first, WebhookState.DELIVERED, "late")  # the first wakes up: its row is not its own any more
    (row,) = await webhooks.list_newest(None)
    assert row["state"] == "due"
    await webhooks.end(second, WebhookState.DELIVERED, "answered 200")
    clock.advance(1e6)
    assert await webhooks.list_waiting_agents() == []


async def test_a_retry_waits_for_its_time(
    jobs: JobStore, cancellation: Cancellation, webhooks: WebhookStore, alice: Agent, clock: FakeClock
) -> None:
    await ended_job(jobs, cancellation, alice)
    (delivery,) = await webhooks.claim({alice.id: 1}, LEASE_S)
    await webhooks.retry(delivery, 600, "answered 500")
    clock.advance(599.9)
    assert await webhooks.list_waiting_agents() == []
    clock.advance(0.1)
    assert await webhooks.list_waiting_agents() == [alice.id]
    assert (await webhooks.list_newest(None))[0]["outcome"] == "answered 500"


async def test_after_a_reboot_what_waited_is_due(
    jobs: JobStore, cancellation: Cancellation, webhooks: WebhookStore, alice: Agent, clock: FakeClock
) -> None:
    for _ in range(2):
        await ended_job(jobs, cancellation, alice)
    first, second = await webhooks.claim({alice.id: 2}, LEASE_S)
    await webhooks.retry(first, 3600, "answered 500")
    await webhooks.end(second, WebhookState.DELIVERED, "answered 200")
    clock.reboot()
    assert await webhooks.list_waiting_agents() == []
    await webhooks.adopt()
    (again,) = await webhooks.claim({alice.id: 2}, LEASE_S)
    assert (again.job.id, again.attempts) == (first.job.id, 2)
    await webhooks.adopt()  # a claim of this boot is left alone
    assert await webhooks.list_waiting_agents() == []


async def test_agents_share_and_the_one_that_waits_longest_is_first(
    jobs: JobStore, cancellation: Cancellation, webhooks: WebhookStore, make_agent: MakeAgent, clock: FakeClock
) -> None:
    agents = [await make_agent(name, concurrent_jobs=9) for name in ("alice", "bob", "carol")]
    for agent, count in zip(agents, (3, 2, 1), strict=True):
        for _ in range(count):
            await ended_job(jobs, cancellation, agent)
    alice, bob, carol = (agent.id for agent in agents)
    for agent_id, delay_s in ((alice, 50), (bob, 40), (carol, 60)):
        for delivery in await webhooks.claim({agent_id: 9}, LEASE_S):
            await webhooks.retry(delivery, delay_s, "")
    clock.advance(55)
    assert await webhooks.list_waiting_agents() == [bob, alice]
    claimed = await webhooks.claim({bob: 1, alice: 2}, LEASE_S)
    assert [delivery.job.agent_id for delivery in claimed] == [bob, alice, alice]


async def test_a_replay_makes_due_what_was_given_up_or_delivered(
    jobs: JobStore, cancellation: Cancellation, webhooks: WebhookStore, alice: Agent
) -> None:
    names = [await ended_job(jobs, cancellation, alice) for _ in range(3)]
    deliveries = await webhooks.claim({alice.id: 3}, LEASE_S)
    states = (WebhookState.FAILED, WebhookState.FAILED, WebhookState.DELIVERED)
    for delivery, state in zip(deliveries, states, strict=True):
        await webhooks.end(delivery, state, "x")
    assert [row["job_id"] for row in await webhooks.list_newest(WebhookState.FAILED)] == names[1::-1]
    assert await webhooks.replay_failed() == 2
    assert await webhooks.replay_failed() == 0
    assert await webhooks.replay(f"msg_{names[2]}") == names[2]
    again = await webhooks.claim({alice.id: 9}, LEASE_S)
    assert {(one.job.id, one.attempts, one.fence) for one in again} == {(name, 1, 3) for name in names}
    await webhooks.end(deliveries[0], WebhookState.FAILED, "late")
    assert await webhooks.list_newest(WebhookState.FAILED) == []
    with pytest.raises(AccountError, match="no webhook 'msg_nothing'"):
        await webhooks.replay("msg_nothing")


@pytest.mark.parametrize("state", [WebhookState.FAILED, WebhookState.DELIVERED, None])
async def test_a_replay_during_an_attempt_is_not_undone_by_its_end(
    jobs: JobStore, cancellation: Cancellation, webhooks: WebhookStore, alice: Agent, state: WebhookState | None
) -> None:
    job_id = await ended_job(jobs, cancellation, alice)
    (under_way,) = await webhooks.claim({alice.id: 1}, LEASE_S)
    await webhooks.replay(job_id)
    if state is None:
        await webhooks.retry(under_way, 600, "answered 500")
    else:
        await webhooks.end(under_way, state, "late")
    (again,) = await webhooks.claim({alice.id: 1}, LEASE_S)
    assert (again.job.id, again.attempts) == (job_id, 1)


async def test_a_replay_of_all_that_failed_leaves_no_earlier_attempt_a_say(
    database: Database, jobs: JobStore, cancellation: Cancellation, webhooks: WebhookStore, alice: Agent
) -> None:
    await ended_job(jobs, cancellation, alice)
    (given_up,) = await webhooks.claim({alice.id: 1}, LEASE_S)
    await webhooks.end(given_up, WebhookState.FAILED, "answered 500")
    assert await webhooks.replay_failed() == 1
    await webhooks.end(given_up, WebhookState.FAILED, "told twice")
    assert [(row["state"], row["outcome"]) for row in await rows(database)] == [("due", "answered 500")]


async def test_a_row_goes_with_its_job(
    database: Database,
    jobs: JobStore,
    cancellation: Cancellation,
    webhooks: WebhookStore,
    alice: Agent,
    clock: FakeClock,
    settings: Settings,
) -> None:
    erased = await ended_job(jobs, cancellation, alice)
    await ended_job(jobs, cancellation, alice)
    claimed = await webhooks.claim({alice.id: 9}, LEASE_S)
    await cancellation.erase(alice, erased)
    assert len(await rows(database)) == 1
    clock.advance(settings.storage.retention_s + 1)
    await RetentionStore(database).expire()
    assert await rows(database) == []
    for delivery in claimed:  # both come back to nothing
        await webhooks.retry(delivery, 5, "x")
    assert await rows(database) == []


async def test_a_secret_changes_its_version_and_its_time(
    jobs: JobStore, cancellation: Cancellation, webhooks: WebhookStore, alice: Agent, clock: FakeClock
) -> None:
    assert (await webhooks.get_secret_version("alice")).version == 1
    assert (await webhooks.get_secret_version("alice", rotate=True)).version == 2
    await ended_job(jobs, cancellation, alice)
    (delivery,) = await webhooks.claim({alice.id: 1}, LEASE_S)
    assert (delivery.session_id, delivery.secret_version) == ("sid_ext_alice", 2)
    assert delivery.secret_rotated_at_us == clock.wall_us()
    with pytest.raises(AccountError, match="no agent called 'nobody'"):
        await webhooks.get_secret_version("nobody")


@pytest.mark.parametrize(
    "name", ["list_webhook_agents", "list_due_webhooks", "claim_webhook", "retry_webhook", "end_webhook"]
)
async def test_no_statement_of_a_round_scans_a_table(database: Database, name: str) -> None:
    sql = getattr(database.statements, name).sql
    values = dict.fromkeys(re.findall(r"(?<!:):(\w+)", sql), 1)
    rows = await database.writer.run(lambda c: c.execute(f"EXPLAIN QUERY PLAN {sql}", values).fetchall())
    plan = [row["detail"] for row in rows]
    assert not [step for step in plan if re.match(r"SCAN (webhooks|w)\b|.*TEMP B-TREE.*LIMIT", step)], plan
    assert any(re.search("INDEX webhooks_due|INDEX sqlite_autoindex_webhooks", step) for step in plan), plan
