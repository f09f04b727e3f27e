"""A claim that is held: what its steps cost the store."""

from __future__ import annotations

import asyncio
import time

from umrgen_core.claim_store import ClaimStore
from umrgen_infer.lease import PROGRESS_INTERVAL_S, Lease

STEPS = 40


async def test_steps_that_come_fast_are_written_a_few_times_a_second_and_the_last_of_them_for_sure(
    database, settings, make_agent, submit, wait_for
):
    claims = ClaimStore(database, settings)
    agent = await make_agent("alice")
    job = await submit(agent, steps=STEPS)
    claim = await claims.claim_next(job.model, "w")
    told: list[float] = []
    async with Lease(claims, claim, heartbeat_s=60, on_progress=lambda: told.append(time.monotonic())) as lease:
        began = time.monotonic()
        for step in range(1, STEPS + 1):
            lease.on_step(step)
            await asyncio.sleep(0.005)
        await wait_for(agent, job.id, lambda job: job.step == STEPS)
        lasted_s = time.monotonic() - began
    assert 1 <= len(told) <= lasted_s / PROGRESS_INTERVAL_S + 1
    assert len(told) < STEPS / 4
