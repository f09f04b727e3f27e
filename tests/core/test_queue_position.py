from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import pytest

from umrgen_core.agents import Agent
from umrgen_core.claim_store import ClaimStore
from umrgen_core.database import Database
from umrgen_core.job_store import MOST_POSITION, JobStore
from umrgen_core.jobs import Job
from umrgen_core.names import new_job_id
from umrgen_core.requests import AcceptedRequest

MODEL = "tiny-klein"
REQUEST = AcceptedRequest(MODEL, "a star", "", 64, 64, 4, 1, (), ())


async def read_position(database: Database, job: Job) -> int:
    sql = database.statements.queue_position.sql
    row = await database.reader.one(sql, model=MODEL, agent_id=job.agent_id, seq=job.seq, most=MOST_POSITION + 1)
    assert row is not None
    return min(row["position"], MOST_POSITION + 1)


@pytest.mark.parametrize("seed", range(3))
async def test_every_position_is_when_the_job_will_be_claimed_or_beyond_the_count(
    database: Database,
    jobs: JobStore,
    claims: ClaimStore,
    make_agent: Callable[..., Awaitable[Agent]],
    seed: int,
) -> None:
    dice = random.Random(seed)
    agents = [await make_agent(f"agent{number}", concurrent_jobs=1000) for number in range(12)]
    first = [(await jobs.enqueue(agent, new_job_id(), REQUEST, "r"))[0] for agent in agents]
    served = [await claims.claim_next(MODEL, "w") for _ in range(dice.randrange(12))]
    weights = [dice.choice((0, 1, 5, 30)) + 0.1 for _ in agents]
    later = [
        (await jobs.enqueue(agent, new_job_id(), REQUEST, "r"))[0] for agent in dice.choices(agents, weights, k=130)
    ]
    waiting = [job for job in [*first, *later] if job.id not in {claim.job_id for claim in served if claim}]
    positions = {job.id: await read_position(database, job) for job in waiting}
    order = [claim.job_id for claim in [await claims.claim_next(MODEL, "w") for _ in waiting] if claim]
    assert [positions[job_id] for job_id in order] == [min(1 + n, MOST_POSITION + 1) for n in range(len(order))]
