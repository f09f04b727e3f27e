from __future__ import annotations

import asyncio

import structlog

from tests.infer.conftest import WAIT_S
from umrgen_infer.painter import OutOfMemory
from umrgen_infer.run import Outcome


async def test_whatever_is_logged_about_a_run_carries_its_labels_whichever_thread_says_it(
    start_daemon, make_agent, submit, wait_for, painter
):
    with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as logs:
        daemon, task = await start_daemon()
        agent = await make_agent("alice")
        painter.error = OutOfMemory()
        failed = await wait_for(agent, (await submit(agent)).id)
        painter.error = None
        done = await wait_for(agent, (await submit(agent)).id)
        daemon.stop()
        await asyncio.wait_for(task, WAIT_S)
    # A tracer of an earlier test may still be giving up, in a thread of its own.
    of_runs = [e for e in logs if not e["event"].startswith("model_") and e["event"] != "spans_lost"]
    assert [entry["event"] for entry in of_runs] == [
        *("run_started", "out_of_memory", "out_of_memory", "job_failed", "run_ended"),
        *("run_started", "job_completed", "run_ended"),
    ]
    for job, entries in ((failed, of_runs[:5]), (done, of_runs[5:])):
        for entry in entries:
            labels = {name: entry[name] for name in ("job_id", "agent", "fence", "request_id")}
            assert labels == {"job_id": job.id, "agent": "alice", "fence": 1, "request_id": "test"}
    assert [entry["outcome"] for entry in of_runs if "outcome" in entry] == [Outcome.FAILED, Outcome.COMPLETED]
    assert not [entry for entry in logs if entry["event"].startswith("model_") and "job_id" in entry]
