from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.conftest import FakeClock
from umrgen_core.agents import Agent
from umrgen_core.claim_store import ClaimStore
from umrgen_core.database import Database
from umrgen_core.errors import NotFound, QuotaExceeded, ReferenceInUse
from umrgen_core.job_ends import NewOutput
from umrgen_core.job_store import JobStore
from umrgen_core.jobs import ErrorCode
from umrgen_core.names import new_disk_name, new_job_id, new_output_filename, new_reference_filename, output_disk_name
from umrgen_core.reference_store import NewReference, ReferenceStore
from umrgen_core.requests import AcceptedRequest
from umrgen_core.sqlite import IntegrityError

WEEK_S = 7 * 86_400
MakeAgent = Callable[..., Awaitable[Agent]]


def sanitised(source: str = "a", size: int = 100) -> NewReference:
    return NewReference(
        new_reference_filename(1_795_000_000_000_000, "png"),
        new_disk_name("png"),
        *("png", 64, 80, size, "f" * 64),
        *(source * 64, 100, 120, 5000, "jpeg"),
    )


async def submit(jobs: JobStore, agent: Agent, *names: str) -> None:
    request = AcceptedRequest("tiny-klein", "a star", "", 64, 64, 4, 1, names, ())
    await jobs.enqueue(agent, new_job_id(), request, "r")


async def read_usage(database: Database, agent: Agent) -> tuple[int, int, int]:
    row = await database.reader.one(database.statements.get_usage.sql, agent_id=agent.id)
    assert row is not None
    return tuple(row)


@pytest.fixture
async def alice(make_agent: MakeAgent) -> Agent:
    return await make_agent("alice")


async def test_a_reference_is_kept_as_it_was_described(
    references: ReferenceStore, alice: Agent, clock: FakeClock
) -> None:
    new = sanitised()
    kept = await references.put(alice, new)
    assert {name: getattr(kept, name) for name in NewReference.__dataclass_fields__} == {
        name: getattr(new, name) for name in NewReference.__dataclass_fields__
    }
    assert (kept.agent_id, kept.session_id, kept.created_at_us) == (alice.id, alice.session_id, clock.wall)
    assert kept.expires_at_us == clock.wall + WEEK_S * 10**6
    assert await references.find(new.filename) == kept
    assert await references.find_upload(alice.id, "a" * 64) == kept


async def test_the_same_bytes_again_are_the_row_that_stands_with_its_file(
    references: ReferenceStore, alice: Agent, clock: FakeClock
) -> None:
    first = await references.put(alice, sanitised(size=100))
    clock.advance(60)
    second = await references.put(alice, sanitised(size=140), lost="some other file")
    assert (second.filename, second.disk_name, second.bytes) == (first.filename, first.disk_name, 100)
    assert second.expires_at_us == first.expires_at_us + 60 * 10**6


async def test_the_same_bytes_again_keep_their_name_and_take_the_new_file_where_theirs_is_lost(
    references: ReferenceStore, alice: Agent, clock: FakeClock
) -> None:
    first = await references.put(alice, sanitised(size=100))
    clock.advance(60)
    again = sanitised(size=140)
    second = await references.put(alice, again, lost=first.disk_name)
    assert (second.id, second.filename, second.created_at_us) == (first.id, first.filename, first.created_at_us)
    assert (second.disk_name, second.bytes) == (again.disk_name, 140)
    assert second.expires_at_us == first.expires_at_us + 60 * 10**6
    assert await references.find(again.filename) is None


async def test_the_same_bytes_at_once_become_one_reference(references: ReferenceStore, alice: Agent) -> None:
    kept = await asyncio.gather(*(references.put(alice, sanitised()) for _ in range(10)))
    assert len({reference.id for reference in kept}) == 1
    assert len(await references.list_live(alice.id)) == 1


async def test_the_same_bytes_of_two_agents_are_two_references(
    references: ReferenceStore, alice: Agent, make_agent: MakeAgent
) -> None:
    bob = await make_agent("bob")
    assert (await references.put(alice, sanitised())).id != (await references.put(bob, sanitised())).id
    assert await references.find_upload(bob.id, "b" * 64) is None


async def test_the_list_is_the_agents_own_newest_first_and_live(
    references: ReferenceStore, alice: Agent, make_agent: MakeAgent, clock: FakeClock
) -> None:
    await references.put(alice, sanitised("a"))
    clock.advance(WEEK_S - 1)
    kept = [await references.put(alice, sanitised(source)) for source in "bc"]
    await references.put(await make_agent("bob"), sanitised("d"))
    clock.advance(1)
    assert await references.list_live(alice.id) == kept[::-1]


async def test_an_expired_reference_is_not_found_but_can_be_renewed(
    references: ReferenceStore, alice: Agent, clock: FakeClock
) -> None:
    kept = await references.put(alice, sanitised())
    clock.advance(WEEK_S)
    assert await references.find(kept.filename) is None
    earlier = await references.find_upload(alice.id, "a" * 64)
    assert earlier == kept
    renewed = await references.renew(earlier)
    assert renewed is not None
    assert renewed.expires_at_us == clock.wall + WEEK_S * 10**6
    assert await references.find(kept.filename) == renewed


async def test_renewing_never_shortens_and_knows_when_the_row_has_gone(
    references: ReferenceStore, alice: Agent, clock: FakeClock
) -> None:
    kept = await references.put(alice, sanitised())
    clock.wall -= 10**12  # a clock that was set back
    assert await references.renew(kept) == kept
    await references.delete(alice, kept.filename)
    assert await references.renew(kept) is None


async def test_the_limit_of_references_holds_for_new_ones_alone(
    references: ReferenceStore, make_agent: MakeAgent
) -> None:
    bob = await make_agent("bob", reference_limit=2)
    for source in "ab":
        await references.put(bob, sanitised(source))
    with pytest.raises(QuotaExceeded, match="DELETE /api/v1/references") as refused:
        await references.put(bob, sanitised("c"))
    assert refused.value.extra == {"quota": "references", "limit": 2, "used": 2}
    kept = await references.put(bob, sanitised("a"))
    await references.delete(bob, kept.filename)
    await references.put(bob, sanitised("c"))


async def test_the_limit_of_bytes_counts_what_is_kept_and_what_comes(
    references: ReferenceStore, make_agent: MakeAgent
) -> None:
    bob = await make_agent("bob", reference_bytes_limit=1000)
    await references.put(bob, sanitised("a", 600))
    with pytest.raises(QuotaExceeded) as refused:
        await references.put(bob, sanitised("b", 401))
    assert refused.value.extra == {"quota": "reference_bytes", "limit": 1000, "used": 600}
    await references.put(bob, sanitised("b", 400))


async def test_uploads_at_once_do_not_pass_a_limit_together(references: ReferenceStore, make_agent: MakeAgent) -> None:
    bob = await make_agent("bob", reference_limit=3)
    results = await asyncio.gather(*(references.put(bob, sanitised(s)) for s in "abcdef0123"), return_exceptions=True)
    assert sum(isinstance(result, QuotaExceeded) for result in results) == 7


async def test_usage_stays_exact(
    database: Database, references: ReferenceStore, jobs: JobStore, claims: ClaimStore, alice: Agent
) -> None:
    assert await read_usage(database, alice) == (0, 0, 0)
    kept = await references.put(alice, sanitised("a", 100))
    await references.put(alice, sanitised("b", 50))
    assert await read_usage(database, alice) == (2, 150, 0)
    await references.put(alice, sanitised("a", 70), lost=kept.disk_name)  # the same bytes, made again smaller
    assert await read_usage(database, alice) == (2, 120, 0)
    await references.delete(alice, kept.filename)
    assert await read_usage(database, alice) == (1, 50, 0)
    await submit(jobs, alice)
    claim = await claims.claim_next("tiny-klein", "w")
    assert claim is not None
    output = NewOutput(new_output_filename(), output_disk_name(claim.job_id, 1), 64, 64, 1000, "0" * 64)
    await claims.complete(claim, output, {}, 1.0)
    assert await read_usage(database, alice) == (1, 50, 1000)

    def expire(connection: Any) -> None:
        connection.execute("DELETE FROM jobs")
        connection.execute("DELETE FROM outputs")

    await database.writer.run(expire)
    assert await read_usage(database, alice) == (1, 50, 0)


@pytest.mark.parametrize("end", ["complete", "fail"])
async def test_a_reference_cannot_be_deleted_before_the_job_that_names_it_has_ended(
    references: ReferenceStore, jobs: JobStore, claims: ClaimStore, alice: Agent, end: str
) -> None:
    kept = await references.put(alice, sanitised())
    await submit(jobs, alice, kept.filename)
    with pytest.raises(ReferenceInUse):
        await references.delete(alice, kept.filename)
    claim = await claims.claim_next("tiny-klein", "w")
    assert claim is not None
    with pytest.raises(ReferenceInUse):
        await references.delete(alice, kept.filename)
    if end == "fail":
        await claims.fail(claim, ErrorCode.MODEL_ERROR, "It broke.", retryable=True)
    else:
        output = NewOutput(new_output_filename(), output_disk_name(claim.job_id, 1), 64, 64, 1000, "0" * 64)
        await claims.complete(claim, output, {}, 1.0)
    assert await references.delete(alice, kept.filename) == kept.disk_name
    assert await references.find(kept.filename) is None


async def test_the_database_itself_keeps_what_is_pinned(
    database: Database, references: ReferenceStore, jobs: JobStore, alice: Agent
) -> None:
    kept = await references.put(alice, sanitised())
    await submit(jobs, alice, kept.filename)
    with pytest.raises(IntegrityError, match="FOREIGN KEY"):
        await database.writer.run(lambda c: c.execute('DELETE FROM "references"'))


async def test_a_reference_of_another_agent_or_of_nobody_cannot_be_deleted(
    references: ReferenceStore, alice: Agent, make_agent: MakeAgent
) -> None:
    kept = await references.put(alice, sanitised())
    bob = await make_agent("bob")
    for name in (kept.filename, "none.png"):
        with pytest.raises(NotFound):
            await references.delete(bob, name)
    assert await references.find(kept.filename) == kept


async def test_an_output_is_found_by_its_public_name_until_it_expires(
    references: ReferenceStore, jobs: JobStore, claims: ClaimStore, alice: Agent, clock: FakeClock
) -> None:
    await submit(jobs, alice)
    claim = await claims.claim_next("tiny-klein", "w")
    assert claim is not None
    new = NewOutput(new_output_filename(), output_disk_name(claim.job_id, 1), 64, 65, 1000, "0" * 64)
    await claims.complete(claim, new, {}, 1.0)
    found = await references.find_output(new.filename)
    assert found is not None
    assert (found.agent_id, found.session_id, found.disk_name) == (alice.id, alice.session_id, new.disk_name)
    assert (found.width, found.height, found.bytes, found.sha256) == (64, 65, 1000, "0" * 64)
    assert await references.find_output(new.disk_name) is None
    clock.advance(WEEK_S)
    assert await references.find_output(new.filename) is None
