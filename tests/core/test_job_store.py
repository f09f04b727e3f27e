from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.conftest import FakeClock
from umrgen_core.agents import Agent
from umrgen_core.claim_store import ClaimStore
from umrgen_core.config import Settings
from umrgen_core.database import Database
from umrgen_core.errors import ConcurrentLimit, QueueFull, QuotaExceeded, ReferenceNotFound, RequestError
from umrgen_core.job_ends import NewOutput
from umrgen_core.job_store import JobStore, QueuePlace
from umrgen_core.jobs import Job, JobState, Reference
from umrgen_core.names import new_disk_name, new_job_id, new_output_filename, new_reference_filename, output_disk_name
from umrgen_core.reference_store import NewReference, ReferenceStore
from umrgen_core.requests import AcceptedRequest
from umrgen_core.run_times import run_time_key

MODEL = "tiny-klein"
WEEK_S = 7 * 86_400
MakeAgent = Callable[..., Awaitable[Agent]]


async def submit(jobs: JobStore, agent: Agent, *names: str, **changes: Any) -> tuple[Job, int]:
    fields = {"model": MODEL, "prompt": "a star", "negative": "", "width": 64, "height": 64, "steps": 4, "seed": 1}
    request = AcceptedRequest(**{**fields, **changes}, reference_names=names, ignored=("lora",))
    return await jobs.enqueue(agent, new_job_id(), request, "request-1")


async def find_place(jobs: JobStore, job: Job) -> QueuePlace:
    place = (await jobs.describe(job)).place
    assert place is not None
    return place


async def find_run_time(jobs: JobStore, job: Job) -> float | None:
    """What a run like this one takes, as the estimates have it."""
    return await jobs._db.reader.run(lambda connection: jobs._find_run_time(connection, job))


async def upload(references: ReferenceStore, agent: Agent, number: int = 0) -> Reference:
    name, disk_name, digest = new_reference_filename(number, "png"), new_disk_name("png"), f"{number:064d}"
    return await references.put(
        agent, NewReference(name, disk_name, "png", 64, 64, 100, digest, digest, 64, 64, 100, "png")
    )


async def paint(claims: ClaimStore, run_s: float = 2.0) -> str:
    """Run the next job; the public name of its picture."""
    claim = await claims.claim_next(MODEL, "w")
    assert claim is not None
    name = new_output_filename()
    output = NewOutput(name, output_disk_name(claim.job_id, claim.fence), 64, 64, 1000, "0" * 64)
    await claims.complete(claim, output, {}, run_s)
    return name


async def count(database: Database, table: str) -> int:
    return (await database.reader.all(f'SELECT count(*) FROM "{table}"'))[0][0]


@pytest.fixture
async def alice(make_agent: MakeAgent) -> Agent:
    return await make_agent("alice", concurrent_jobs=1000)


async def test_an_accepted_job_is_kept_as_it_was_asked_for(jobs: JobStore, alice: Agent, clock: FakeClock) -> None:
    job, position = await submit(jobs, alice, prompt="a ⭐", seed=2**53 - 1, negative="x", width=65, height=2048)
    assert position == 1
    assert await jobs.find(alice, job.id) == job
    assert (job.state, job.attempts, job.fence, job.output) == (JobState.QUEUED, 0, 0, None)
    assert (job.prompt, job.negative, job.width, job.height, job.seed) == ("a ⭐", "x", 65, 2048, 2**53 - 1)
    assert (job.ignored, job.request_id, job.created_at_us) == (("lora",), "request-1", clock.wall)


async def test_a_job_is_seen_by_its_agent_alone_and_until_it_expires(
    jobs: JobStore, claims: ClaimStore, alice: Agent, make_agent: MakeAgent, clock: FakeClock
) -> None:
    job, _ = await submit(jobs, alice)
    assert await jobs.find(await make_agent("bob"), job.id) is None
    assert await jobs.find(alice, "ext_none") is None
    await paint(claims)
    clock.advance(WEEK_S - 1)
    assert await jobs.find(alice, job.id) is not None
    clock.advance(1)
    assert await jobs.find(alice, job.id) is None


# Images

FORMS = {
    "name": "{name}",
    "url": "/{kind}/{session}/{name}",
    "url with its query": "/{kind}/{session}/{name}?session_id={session}",
    "absolute url": "https://images.example:8443/{kind}/{session}/{name}?session_id={session}#top",
    "absolute url of anywhere": "HTTP://user@10.0.0.1/{kind}/{session}/{name}",
}


@pytest.mark.parametrize("form", FORMS)
async def test_references_and_outputs_are_pinned_in_the_order_they_are_named(
    jobs: JobStore, claims: ClaimStore, references: ReferenceStore, alice: Agent, form: str
) -> None:
    reference = await upload(references, alice)
    await submit(jobs, alice)
    picture = await paint(claims)
    values = {"session": alice.session_id}
    names = (
        FORMS[form].format(kind="outputs", name=picture, **values),
        FORMS[form].format(kind="references", name=reference.filename, **values),
    )
    job, _ = await submit(jobs, alice, *names)
    assert job.reference_names == names
    claim = await claims.claim_next(MODEL, "w")
    assert claim is not None
    assert [(pin.position, pin.reference_id is None) for pin in claim.pins] == [(0, True), (1, False)]
    assert claim.pins[1].disk_name == reference.disk_name
    assert (claim.pins[1].sha256, claim.pins[1].bytes) == (reference.sha256, 100)


async def test_the_same_image_may_be_named_twice(
    jobs: JobStore, claims: ClaimStore, references: ReferenceStore, alice: Agent
) -> None:
    name = (await upload(references, alice)).filename
    await submit(jobs, alice, name, name)
    claim = await claims.claim_next(MODEL, "w")
    assert claim is not None
    assert len(claim.pins) == 2


async def test_a_reference_that_is_used_is_kept_for_a_whole_time_more(
    jobs: JobStore, references: ReferenceStore, alice: Agent, clock: FakeClock
) -> None:
    reference = await upload(references, alice)
    clock.advance(WEEK_S - 1)
    await submit(jobs, alice, reference.filename)
    clock.advance(WEEK_S - 1)
    assert await references.find(reference.filename) is not None


NO_IMAGES = [
    "",
    "none.png",
    "{name} ",
    "{NAME}",
    "/references//{name}",
    "/references/sid_ext_bob/{name}",
    "https://a/references/sid_ext_bob/{name}",
    "/outputs/{session}/{name}",
    "/references/{session}/",
    "/references/{session}/{name}/",
    "/references/{session}/../{session}/{name}",
    "/REFERENCES/{session}/{name}",
    "references/{session}/{name}",
    "/etc/passwd",
    "../../{name}",
    "file:///references/{session}/{name}/..",
    "//evil/references/{session}/{name}",
    "data:image/png;base64,AAAA",
    "%' OR 1=1 --",
    "{name}\x00",
    "/references/{session}/{name}?\n",
    "x" * 100_000,
]


@pytest.mark.parametrize("name", NO_IMAGES)
async def test_a_name_of_any_other_shape_is_not_found_and_nothing_is_written(
    database: Database, jobs: JobStore, references: ReferenceStore, alice: Agent, clock: FakeClock, name: str
) -> None:
    reference = await upload(references, alice)
    clock.advance(60)
    good = reference.filename
    name = name.format(name=good, NAME=good.upper(), session=alice.session_id)
    with pytest.raises(ReferenceNotFound) as refused:
        await submit(jobs, alice, good, name)
    assert refused.value.extra == {"filename": name}
    assert await count(database, "jobs") == await count(database, "job_references") == 0
    assert await references.find(good) == reference  # not even renewed


async def test_an_image_of_another_agent_is_not_found(
    jobs: JobStore, claims: ClaimStore, references: ReferenceStore, alice: Agent, make_agent: MakeAgent
) -> None:
    bob = await make_agent("bob")
    reference = await upload(references, alice)
    await submit(jobs, alice)
    picture = await paint(claims)
    for name in (reference.filename, picture):
        for form in (name, f"/references/{bob.session_id}/{name}", f"/outputs/{bob.session_id}/{name}"):
            with pytest.raises(ReferenceNotFound):
                await submit(jobs, bob, form)


async def test_an_image_that_has_expired_is_not_found(
    jobs: JobStore, claims: ClaimStore, references: ReferenceStore, alice: Agent, clock: FakeClock
) -> None:
    reference = await upload(references, alice)
    await submit(jobs, alice)
    picture = await paint(claims)
    clock.advance(WEEK_S)
    for name in (reference.filename, picture):
        with pytest.raises(ReferenceNotFound):
            await submit(jobs, alice, name)


# Limits


async def test_the_limit_of_jobs_at_a_time_names_the_job_to_wait_for(
    jobs: JobStore, claims: ClaimStore, make_agent: MakeAgent
) -> None:
    bob = await make_agent("bob", concurrent_jobs=2)
    oldest, _ = await submit(jobs, bob)
    await submit(jobs, bob)
    claim = await claims.claim_next(MODEL, "w")
    assert claim is not None
    await claims.put_progress(claim, 1)
    with pytest.raises(ConcurrentLimit) as refused:
        await submit(jobs, bob)
    progress = {"step": 1, "steps": 4, "fraction": 0.25}
    assert refused.value.extra == {"job_id": oldest.id, "state": "running", "progress": progress, "limit": 2}
    assert refused.value.retry_after_s == 2.0
    assert oldest.id in refused.value.message
    await paint(claims)
    await submit(jobs, bob)  # one has ended
    with pytest.raises(ConcurrentLimit):  # the running one still counts
        await submit(jobs, bob)


async def test_when_to_come_back_is_what_the_oldest_job_still_takes(
    jobs: JobStore, claims: ClaimStore, make_agent: MakeAgent, clock: FakeClock
) -> None:
    bob = await make_agent("bob")
    await submit(jobs, bob)
    await paint(claims, run_s=8.0)
    await submit(jobs, bob)
    for passed_s, expected_s in ((0, 8.0), (3, 5.0), (9, 0.0)):
        if passed_s == 3:
            await claims.claim_next(MODEL, "w")
            clock.advance(3)
        elif passed_s == 9:
            clock.advance(6)
        with pytest.raises(ConcurrentLimit) as refused:
            await submit(jobs, bob)
        assert refused.value.retry_after_s == pytest.approx(expected_s)


async def test_a_hundred_requests_at_once_within_a_limit_of_one_become_one_job(
    database: Database, jobs: JobStore, make_agent: MakeAgent
) -> None:
    bob = await make_agent("bob")
    results = await asyncio.gather(*(submit(jobs, bob) for _ in range(100)), return_exceptions=True)
    assert sum(isinstance(result, ConcurrentLimit) for result in results) == 99
    assert await count(database, "jobs") == 1


async def test_a_limit_of_no_jobs_takes_none(jobs: JobStore, make_agent: MakeAgent) -> None:
    with pytest.raises(ConcurrentLimit, match="limit of jobs at a time is 0"):
        await submit(jobs, await make_agent("bob", concurrent_jobs=0))


async def test_a_full_queue_takes_no_job_of_anybody(
    database: Database, settings: Settings, alice: Agent, make_agent: MakeAgent, claims: ClaimStore
) -> None:
    jobs = JobStore(
        database, settings.model_copy(update={"limits": settings.limits.model_copy(update={"queued_jobs": 2})})
    )
    await submit(jobs, alice)
    await submit(jobs, alice)
    bob = await make_agent("bob")
    with pytest.raises(QueueFull) as refused:
        await submit(jobs, bob)
    assert refused.value.retry_after_s == 10
    await claims.claim_next(MODEL, "w")  # a running job is not queued
    await submit(jobs, bob)


async def test_an_agent_whose_outputs_are_at_their_limit_gets_no_more(
    jobs: JobStore, claims: ClaimStore, make_agent: MakeAgent
) -> None:
    bob = await make_agent("bob", output_bytes_limit=1001)
    for _ in range(2):
        await submit(jobs, bob)
        await paint(claims)
    with pytest.raises(QuotaExceeded) as refused:
        await submit(jobs, bob)
    assert refused.value.extra == {"quota": "output_bytes", "limit": 1001, "used": 2000}


async def test_a_refused_job_renews_no_reference_and_writes_no_row(
    database: Database, jobs: JobStore, references: ReferenceStore, make_agent: MakeAgent, clock: FakeClock
) -> None:
    bob = await make_agent("bob")
    reference = await upload(references, bob)
    await submit(jobs, bob)
    clock.advance(60)
    with pytest.raises(RequestError):
        await submit(jobs, bob, reference.filename)
    assert await references.find(reference.filename) == reference
    assert (await count(database, "jobs"), await count(database, "job_references")) == (1, 0)


# Position and estimates


async def test_positions_follow_the_fair_order(
    jobs: JobStore, claims: ClaimStore, alice: Agent, make_agent: MakeAgent
) -> None:
    queued = [await submit(jobs, alice) for _ in range(3)]
    assert [position for _, position in queued] == [1, 2, 3]
    bob = await make_agent("bob", concurrent_jobs=9)
    later = [await submit(jobs, bob) for _ in range(2)]
    assert [position for _, position in later] == [2, 4]
    places = {job.id: (await find_place(jobs, job)).position for job, _ in [*queued, *later]}
    order = [claim.job_id for claim in [await claims.claim_next(MODEL, "w") for _ in places] if claim]
    assert [places[job_id] for job_id in order] == [1, 2, 3, 4, 5]


async def test_a_job_behind_a_long_queue_of_one_other_agent_is_at_most_second(
    jobs: JobStore, alice: Agent, make_agent: MakeAgent
) -> None:
    await asyncio.gather(*(submit(jobs, alice) for _ in range(30)))
    _, position = await submit(jobs, await make_agent("bob"))
    assert position == 2


async def test_jobs_of_another_model_do_not_count(jobs: JobStore, alice: Agent, make_agent: MakeAgent) -> None:
    await submit(jobs, alice, model="other")
    assert (await submit(jobs, await make_agent("bob")))[1] == 1


async def test_positions_are_counted_up_to_a_hundred(jobs: JobStore, alice: Agent) -> None:
    queued = await asyncio.gather(*(submit(jobs, alice) for _ in range(150)))
    places = [await find_place(jobs, job) for job, _ in sorted(queued, key=lambda pair: pair[0].seq)]
    assert [place.position for place in places] == [*range(1, 101), *[100] * 50]
    assert [place.capped for place in places] == [False] * 100 + [True] * 50


async def test_an_estimate_is_what_just_such_runs_took_else_what_the_model_took(
    jobs: JobStore, claims: ClaimStore, alice: Agent
) -> None:
    first, _ = await submit(jobs, alice)
    assert await find_run_time(jobs, first) is None
    assert (await find_place(jobs, first)).eta_s is None
    await paint(claims, run_s=2.0)
    await submit(jobs, alice, steps=8)
    await paint(claims, run_s=6.0)
    alike, _ = await submit(jobs, alice)
    unlike, _ = await submit(jobs, alice, width=128)
    assert await find_run_time(jobs, alike) == 2.0
    assert await find_run_time(jobs, unlike) == 4.0
    assert (await find_place(jobs, unlike)).eta_s == 8.0  # second in the queue
    other, _ = await submit(jobs, alice, model="other")
    assert await find_run_time(jobs, other) is None


async def test_an_estimate_follows_the_last_ten_runs(jobs: JobStore, claims: ClaimStore, alice: Agent) -> None:
    for run_s in [*[10.0] * 20, *[2.0] * 30]:
        await submit(jobs, alice)
        await paint(claims, run_s)
    job, _ = await submit(jobs, alice)
    assert await find_run_time(jobs, job) == pytest.approx(2.0 + 8.0 * 0.9**30)


async def test_what_is_remembered_of_runs_is_bounded_whatever_sizes_agents_choose() -> None:
    keys = {
        tuple(run_time_key("m", width, height, 4, 0).values()) for width in range(64, 2049, 7) for height in (64, 999)
    }
    assert len(keys) <= 64
    assert run_time_key("m", 1024, 512, 4, 0) == run_time_key("m", 512, 1024, 4, 0)
    assert run_time_key("m", 512, 512, 4, 0) != run_time_key("m", 1024, 1024, 4, 0)
