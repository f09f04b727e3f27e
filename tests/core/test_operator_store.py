from __future__ import annotations

import json
import re

import pytest

from tests.conftest import FakeClock
from tests.core.test_claim_store import MODEL, MakeAgent, alice, claim, complete, submit  # noqa: F401 - a fixture
from umrgen_core.agents import Agent
from umrgen_core.claim_store import ClaimStore
from umrgen_core.config import Settings
from umrgen_core.database import Database
from umrgen_core.errors import OperatorError, QueueFull, Unavailable
from umrgen_core.job_store import JobStore
from umrgen_core.jobs import Job, JobState
from umrgen_core.names import new_job_id
from umrgen_core.operator_store import JobFilter, OperatorStore
from umrgen_core.queue_control import QueueControl
from umrgen_core.requests import AcceptedRequest
from umrgen_core.statements import load_statements

SECRET = "a canary in a prompt"


@pytest.fixture
def store(database: Database, settings: Settings) -> OperatorStore:
    return OperatorStore(database, settings)


@pytest.fixture
async def bob(make_agent: MakeAgent) -> Agent:
    return await make_agent("bob")


async def post(jobs: JobStore, agent: Agent, *names: str, model: str = MODEL) -> str:
    """A job with something in every field."""
    request = AcceptedRequest(
        model, SECRET, "no canary", 128, 64, 3, 7, names, ("guidance",), (), "https://example.org/hush"
    )
    return (await jobs.enqueue(agent, new_job_id(), request, "request-1"))[0].id


async def ids(store: OperatorStore, most: int = 50, **wanted: object) -> list[str]:
    return [line.id for line in (await store.list_jobs(JobFilter(**wanted), most)).lines]  # type: ignore[arg-type]


async def test_jobs_of_every_agent_are_listed_newest_first_and_by_each_filter(
    store: OperatorStore,
    jobs: JobStore,
    claims: ClaimStore,
    alice: Agent,  # noqa: F811
    bob: Agent,
) -> None:
    first = await submit(jobs, alice)
    await complete(claims, await claim(claims))
    second, third = await submit(jobs, bob), await submit(jobs, alice, model="other")
    assert await ids(store) == [third, second, first]
    assert await ids(store, agent="alice") == [third, first]
    assert await ids(store, state=JobState.QUEUED) == [third, second]
    assert await ids(store, state=JobState.QUEUED, agent="bob") == [second]
    assert await ids(store, state=JobState.COMPLETED) == [first]
    assert await ids(store, model="other") == [third]
    assert await ids(store, model="other", state=JobState.QUEUED) == [third]
    assert await ids(store, model="other", state=JobState.COMPLETED) == []
    assert await ids(store, model="other", agent="bob") == []
    with pytest.raises(OperatorError, match="no agent called 'nobody'"):
        await ids(store, agent="nobody")


@pytest.mark.parametrize("state", [None, JobState.QUEUED])
async def test_a_list_goes_on_where_its_page_ended(
    store: OperatorStore,
    jobs: JobStore,
    alice: Agent,  # noqa: F811
    state: JobState | None,
) -> None:
    posted = [await submit(jobs, alice) for _ in range(5)]
    page = await store.list_jobs(JobFilter(state=state), 3)
    rest = await store.list_jobs(JobFilter(state=state), 3, page.next_before)
    assert [line.id for line in (*page.lines, *rest.lines)] == posted[::-1]
    assert rest.next_before is None


async def test_a_list_says_when_it_looked_at_the_newest_jobs_only(
    store: OperatorStore,
    jobs: JobStore,
    alice: Agent,  # noqa: F811
) -> None:
    old = await submit(jobs, alice, model="other")
    await submit(jobs, alice)
    page = await store.list_jobs(JobFilter(model="other"), look=1)
    assert (page.lines, page.looked_at) == ((), 1)
    page = await store.list_jobs(JobFilter(model="other"), look=2)
    assert [line.id for line in page.lines] == [old]
    assert (await store.list_jobs(JobFilter(state=JobState.QUEUED, model="other"), look=1)).looked_at is None


async def test_a_record_tells_everything_but_the_prompt_unless_asked(
    store: OperatorStore,
    jobs: JobStore,
    claims: ClaimStore,
    alice: Agent,  # noqa: F811
    settings: Settings,
) -> None:
    job_id = await post(jobs, alice)
    claimed = await claim(claims)
    running = (await store.show(job_id)).as_json(with_prompt=False)
    assert (running["state"], running["worker_id"], running["lease_left_s"]) == ("running", "w1", 30.0)
    await complete(claims, claimed)
    record = await store.show(job_id)
    told = record.as_json(with_prompt=False)
    for word in ("canary", "hush"):
        assert word not in json.dumps(told)
        assert word not in json.dumps([line.as_json() for line in (await store.list_jobs(JobFilter())).lines])
        assert word in json.dumps(record.as_json(with_prompt=True))
    assert (told["agent"], told["state"], told["attempts"], told["fence"]) == ("alice", "completed", 1, 1)
    assert told["timings"] == {"total": 2.0}
    assert told["webhook"] == {"state": "due", "attempts": 0, "outcome": None}
    assert [kind for _, kind in record.events] == ["state", "state", "done"]
    assert str(record.output_path).startswith(str(settings.storage.data_dir.resolve() / "files" / "outputs"))
    assert not record.output_exists


async def test_a_queued_job_is_cancelled_and_a_running_one_asked_to_end(
    store: OperatorStore,
    jobs: JobStore,
    claims: ClaimStore,
    alice: Agent,  # noqa: F811
) -> None:
    running = await submit(jobs, alice)
    await claim(claims)
    queued = await submit(jobs, alice)
    assert (await store.cancel(queued)).state is JobState.CANCELLED
    asked = await store.cancel(running)
    assert (asked.state, asked.cancel_requested_at_us is not None) == (JobState.RUNNING, True)
    with pytest.raises(OperatorError, match="no job 'ext_1'"):
        await store.cancel("ext_1")


# Retry


async def end(store: OperatorStore, jobs: JobStore, agent: Agent, *names: str) -> str:
    job_id = await post(jobs, agent, *names)
    await store.cancel(job_id)
    return job_id


def request_of(job: Job) -> tuple[object, ...]:
    size = (job.width, job.height, job.steps, job.seed)
    return (
        job.agent_id,
        job.model,
        job.prompt,
        job.negative,
        *size,
        job.ignored,
        job.reference_names,
        job.callback_url,
    )


async def test_a_retry_is_the_same_request_as_a_new_job_beyond_the_agents_limits(
    store: OperatorStore, jobs: JobStore, claims: ClaimStore, bob: Agent, database: Database
) -> None:
    assert bob.limits.concurrent_jobs == 1
    await submit(jobs, bob)
    filename = await complete(claims, await claim(claims))
    ended = await end(store, jobs, bob, filename)
    await submit(jobs, bob)
    again = await store.retry(ended)
    assert again.id != ended
    assert again.state is JobState.QUEUED
    assert again.request_id == f"retry.{ended}"
    before = await jobs.find(bob, ended)
    assert before is not None
    assert before.state is JobState.CANCELLED
    assert request_of(again) == request_of(before)
    assert len((await store.show(again.id)).pins) == 1


async def test_a_retry_is_refused_where_it_makes_no_sense(
    store: OperatorStore,
    jobs: JobStore,
    claims: ClaimStore,
    alice: Agent,  # noqa: F811
    clock: FakeClock,
) -> None:
    first = await submit(jobs, alice)
    with pytest.raises(OperatorError, match="is queued"):
        await store.retry(first)
    filename = await complete(claims, await claim(claims))
    with pytest.raises(OperatorError, match="--force"):
        await store.retry(first)
    assert (await store.retry(first, force=True)).state is JobState.QUEUED
    ended = await end(store, jobs, alice, filename)
    clock.advance(8 * 86_400)
    with pytest.raises(OperatorError, match=f"named the picture {filename}"):
        await store.retry(ended)


async def test_a_retry_is_bound_by_what_the_service_has_room_for(
    database: Database,
    settings: Settings,
    store: OperatorStore,
    jobs: JobStore,
    alice: Agent,  # noqa: F811
) -> None:
    ended = await end(store, jobs, alice)
    await QueueControl(database).drain()
    with pytest.raises(Unavailable, match="run empty"):
        await store.retry(ended)
    await QueueControl(database).resume()
    limits, storage = settings.limits, settings.storage
    full = settings.model_copy(update={"limits": limits.model_copy(update={"queued_jobs": 0})})
    with pytest.raises(QueueFull):
        await OperatorStore(database, full).retry(ended)
    low = settings.model_copy(update={"storage": storage.model_copy(update={"disk_floor_bytes": 2**60})})
    with pytest.raises(Unavailable, match="disk is nearly full"):
        await OperatorStore(database, low).retry(ended)
    assert len(await ids(store)) == 1


# Plans


LISTS = ("operator_jobs", "operator_jobs_of_agent", "operator_jobs_in_state", "operator_events", "operator_webhook")


@pytest.mark.parametrize("name", LISTS)
async def test_no_list_walks_through_every_job(database: Database, name: str) -> None:
    sql: str = getattr(load_statements(), name).sql
    asked = dict.fromkeys(re.findall(r"(?<!:):(\w+)", sql), 1)
    plan = [row["detail"] for row in await database.reader.all(f"EXPLAIN QUERY PLAN {sql}", **asked)]
    assert any(step.startswith("SEARCH") for step in plan)
    assert [step for step in plan if re.match(r"SCAN (jobs|j|own|events|webhooks)\b", step)] == []
