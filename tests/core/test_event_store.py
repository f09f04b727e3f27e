from __future__ import annotations

from collections.abc import Callable
from typing import Any

from umrgen_core.database import Database
from umrgen_core.event_store import EventStore
from umrgen_core.job_store import JobStore
from umrgen_core.requests import AcceptedRequest


async def submit(jobs: JobStore, agent: Any, job_id: str) -> None:
    await jobs.enqueue(agent, job_id, AcceptedRequest("m", "a star", "", 64, 64, 4, 1, (), ()), "r")


async def test_each_change_is_read_once_behind_the_last_that_was_seen(
    database: Database, jobs: JobStore, make_agent: Callable[..., Any]
) -> None:
    events, agent = EventStore(database), await make_agent("alice", concurrent_jobs=9)
    assert await events.find_newest() == 0
    await submit(jobs, agent, "ext_1")
    seen, changed, more = await events.list_changed(0)
    assert (changed, more) == ({"ext_1"}, False)
    assert seen == await events.find_newest() == (await events.find_last("ext_1")).id
    assert await events.list_changed(seen) == (seen, set(), False)
    await submit(jobs, agent, "ext_2")
    assert (await events.list_changed(seen))[1] == {"ext_2"}
    assert await events.find_last("ext_3") is None
