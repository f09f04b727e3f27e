from __future__ import annotations

from tests.infer.test_daemon import request_cancel
from umrgen_core.jobs import JobState
from umrgen_infer.daemon import Daemon
from umrgen_infer.pipelines.load import load_painter


async def test_a_cancel_takes_effect_within_one_step_of_the_real_pipeline(
    start_daemon, make_agent, submit, wait_for, database, settings
):
    daemon_of: list[Daemon] = []
    steps: list[bool] = []

    class Watched:
        """The shipped model, with a note for each step of whether the run was to be stopped by then."""

        def __init__(self, name: str) -> None:
            self._painter = load_painter(name, settings.models[name], threads=1)

        def paint(self, commission, on_step, *, lean=False):
            def note_step(step: int) -> None:
                steps.append(any(run.lease.stop_reason is not None for run in daemon_of[0]._runs.values()))
                on_step(step)

            return self._painter.paint(commission, note_step, lean=lean)

        def close(self) -> None:
            self._painter.close()

    daemon, _ = await start_daemon(load=Watched)
    daemon_of.append(daemon)
    agent = await make_agent("alice", concurrent_jobs=2)
    job = await wait_for(agent, (await submit(agent, steps=50)).id, lambda job: job.step >= 2)
    await request_cancel(database, job.id)
    daemon._on_hint(job.id)
    ended = await wait_for(agent, job.id)
    assert (ended.state, ended.output) == (JobState.CANCELLED, None)
    assert len(steps) < 50
    assert not any(steps[:-1])
    assert (await wait_for(agent, (await submit(agent)).id)).state is JobState.COMPLETED
