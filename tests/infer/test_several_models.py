"""The real daemon with several models, on a card that holds fewer than it serves."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from tests.conftest import make_settings
from tests.infer.conftest import WAIT_S, FakePainter, is_running
from umrgen_core.errors import ConfigError, RunError
from umrgen_core.jobs import ErrorCode, JobState
from umrgen_core.loras import LoraShelf
from umrgen_core.names import new_job_id
from umrgen_core.requests import accept_request
from umrgen_core.worker_store import WorkerState, WorkerStore
from umrgen_infer.memory import DeviceMemory
from umrgen_infer.painter import Commission, OnStep, OutOfMemory, Painting

STEP_S = 0.005


class Studio:
    """Loads painters by name and writes down what is done with them."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.errors: dict[str, Exception] = {}
        self.lean_error: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()

    def load(self, model: str) -> FakePainter:
        self.log.append(f"load {model}")
        if model in self.errors:
            raise self.errors[model]
        return NamedPainter(self, model)

    def count(self, what: str) -> int:
        return sum(line.startswith(what) for line in self.log)


class NamedPainter(FakePainter):
    def __init__(self, studio: Studio, model: str) -> None:
        super().__init__()
        self.studio = studio
        self.model = model

    def paint(self, commission: Commission, on_step: OnStep, *, lean: bool = False) -> Painting:
        self.studio.gate.wait(WAIT_S)
        self.studio.log.append(f"paint {self.model} {commission.seed}{' lean' if lean else ''}")
        if self.studio.lean_error is not None and not (lean and isinstance(self.studio.lean_error, OutOfMemory)):
            raise self.studio.lean_error
        time.sleep(STEP_S)
        return super().paint(commission, on_step)

    def close(self) -> None:
        self.studio.log.append(f"close {self.model}")


@pytest.fixture
def studio() -> Studio:
    return Studio()


@pytest.fixture
def configure(settings, tmp_path):
    """`configure("a", "b", room=1)`: the models served, and how many of them the card holds at once."""

    def make(*models: str, room: int = 1, **infer):
        tiny = settings.models["tiny-klein"].model_dump() | {"memory_bytes": 100}
        infer = {"models": list(models), "memory_bytes": 100 * room, "poll_s": 0.05, **infer}
        return make_settings(tmp_path / "data", models=dict.fromkeys("abc", tiny), infer=infer)

    return make


@pytest.fixture
def post(jobs):
    async def post_one(settings, agent, model: str, seed: int = 0):
        body = {"prompt": "a star", "width": 64, "height": 64, "model": model, "seed": seed}
        job, _ = await jobs.enqueue(
            agent, new_job_id(), accept_request(body, settings.served_models, LoraShelf("")), "t"
        )
        return job

    return post_one


async def test_models_that_fit_together_are_painted_in_the_agents_fair_order_and_loaded_once(
    start_daemon, make_agent, post, wait_for, studio, configure
):
    served = configure("a", "b", room=2)
    alice, bob = await make_agent("alice", concurrent_jobs=20), await make_agent("bob", concurrent_jobs=20)
    studio.gate.clear()
    await start_daemon(served, studio.load)
    submitted = [(alice, await post(served, alice, "ab"[n % 2], n)) for n in range(6)]
    submitted += [(bob, await post(served, bob, "a", 10 + n)) for n in range(3)]
    await wait_for(alice, submitted[0][1].id, is_running)
    studio.gate.set()
    for agent, job in submitted:
        assert (await wait_for(agent, job.id)).state is JobState.COMPLETED
    assert [line for line in studio.log if "paint" not in line] == ["load a", "load b"]
    turns = [int(line.split()[2]) >= 10 for line in studio.log if line.startswith("paint")]
    # Loading b is worth it only once a has no work or b has waited: alice's b jobs come after all of a's.
    assert turns[:6].count(True) == 3


async def test_models_that_push_each_other_out_are_painted_in_long_turns(
    start_daemon, make_agent, post, wait_for, studio, configure
):
    served = configure("a", "b", max_model_wait_s=0.3)
    agents = {model: await make_agent(model, concurrent_jobs=99) for model in "ab"}
    submitted = [(model, await post(served, agents[model], model, n)) for n in range(60) for model in "ab"]
    await start_daemon(served, studio.load)
    for model, job in submitted:
        assert (await wait_for(agents[model], job.id)).state is JobState.COMPLETED
    painted_s = 120 * STEP_S
    assert 2 <= studio.count("load") <= 3 + painted_s * 6 / 0.3
    assert studio.count("load") < 30  # of 120 jobs that take turns in fair order


async def test_a_job_of_another_model_waits_no_longer_than_promised_while_there_is_no_end_of_work(
    start_daemon, make_agent, post, wait_for, studio, configure
):
    served = configure("a", "b", max_model_wait_s=0.5)
    busy, rare = await make_agent("busy", concurrent_jobs=900), await make_agent("rare")
    for n in range(400):
        await post(served, busy, "a", n)
    await start_daemon(served, studio.load)
    began = time.monotonic()
    job = await post(served, rare, "b", 1000)
    ended = await wait_for(rare, job.id)
    waited_s = time.monotonic() - began
    assert ended.state is JobState.COMPLETED
    assert 0.4 <= waited_s <= 2.5
    assert studio.count("paint a") < 400
    assert ended.timings["load_model"] > 0


async def test_two_daemons_with_different_models_leave_each_other_their_jobs(
    start_daemon, make_agent, post, wait_for, configure
):
    first, second, both = configure("a", "b"), configure("c"), configure("a", "b", "c")
    studios = [Studio(), Studio()]
    await start_daemon(first, studios[0].load)
    await start_daemon(second, studios[1].load)
    agent = await make_agent("alice", concurrent_jobs=99)
    submitted = [await post(both, agent, "abc"[n % 3], n) for n in range(12)]
    for job in submitted:
        assert (await wait_for(agent, job.id)).attempts == 1
    assert studios[0].count("paint c") == studios[1].count("paint a") == studios[1].count("paint b") == 0
    assert [studios[0].count("paint a"), studios[0].count("paint b"), studios[1].count("paint c")] == [4, 4, 4]


async def test_a_model_that_cannot_be_loaded_fails_its_jobs_while_the_others_go_on(
    start_daemon, make_agent, post, wait_for, studio, configure, database
):
    served = configure("a", "b")
    studio.errors["b"] = ConfigError("no such folder")
    await start_daemon(served, studio.load)
    agent = await make_agent("alice", concurrent_jobs=99)
    submitted = [await post(served, agent, "ab"[n % 2], n) for n in range(6)]
    ended = [await wait_for(agent, job.id) for job in submitted]
    assert [job.error_code for job in ended] == [None, "model_error"] * 3
    assert (ended[1].retryable, "folder" in ended[1].error) == (True, False)
    assert studio.count("load b") == 1


async def test_jobs_of_a_model_that_only_another_worker_can_load_are_left_to_it(
    start_daemon, make_agent, post, wait_for, studio, configure, database
):
    served = configure("a", "b")
    studio.errors["b"] = ConfigError("no such folder")
    workers = WorkerStore(database)
    await workers.announce("able", 1, WorkerState.READY, ["a", "b"])
    await start_daemon(served, studio.load)
    agent = await make_agent("alice", concurrent_jobs=99)
    lost = await wait_for(agent, (await post(served, agent, "b", 1)).id)
    assert lost.error_code == "model_error"  # somebody has to find out
    left = await post(served, agent, "b", 2)
    assert (await wait_for(agent, (await post(served, agent, "a", 3)).id)).state is JobState.COMPLETED
    assert (await wait_for(agent, left.id, lambda _: True)).state is JobState.QUEUED
    await workers.withdraw("able")
    assert (await wait_for(agent, left.id)).error_code == "model_error"
    assert studio.count("load b") == 1


async def test_what_ran_out_of_memory_is_painted_lean_and_says_so(
    start_daemon, make_agent, post, wait_for, studio, configure
):
    served = configure("a")
    studio.lean_error = OutOfMemory()
    await start_daemon(served, studio.load)
    agent = await make_agent("alice")
    job = await wait_for(agent, (await post(served, agent, "a", 1)).id)
    assert (job.state, job.ran_with) == (JobState.COMPLETED, {"lean": True})
    assert studio.log[-2:] == ["paint a 1", "paint a 1 lean"]


async def test_the_largest_size_that_fits_is_named_in_the_agents_own_terms(
    start_daemon, make_agent, submit, wait_for, tmp_path
):
    class Greedy(FakePainter):
        def paint(self, commission: Commission, on_step: OnStep, *, lean: bool = False) -> Painting:
            peak = 1000 + commission.width * commission.height
            if peak > 200_000:
                raise OutOfMemory
            painted = super().paint(commission, on_step)
            return Painting(painted.image, painted.timings, peak_bytes=peak)

    tiny = {"pipeline": "P", "path": "p", "multiple_px": 16}
    served = make_settings(tmp_path / "data", models={"tiny-klein": tiny})
    memory = DeviceMemory(1000, 200_000)
    await start_daemon(served, lambda _: Greedy(), read_memory=lambda: memory)
    agent = await make_agent("alice")
    for side in (128, 256):
        await wait_for(agent, (await submit(agent, width=side, height=side)).id)
    job = await wait_for(agent, (await submit(agent, width=1000, height=500)).id)
    assert (job.state, job.error_code, job.retryable) == (JobState.FAILED, ErrorCode.OUT_OF_MEMORY, False)
    assert job.error == (
        "1000x500 with 0 references does not fit the device's memory. With the same references 608x304 does."
    )
    assert (await wait_for(agent, (await submit(agent, width=608, height=304)).id)).state is JobState.COMPLETED


async def test_what_a_run_raises_of_its_own_is_kept(start_daemon, make_agent, post, wait_for, studio, configure):
    served = configure("a")
    studio.lean_error = RunError(ErrorCode.MODEL_ERROR, "The LoRA is not for this model.", retryable=False)
    await start_daemon(served, studio.load)
    agent = await make_agent("alice")
    job = await wait_for(agent, (await post(served, agent, "a", 1)).id)
    assert (job.error_code, job.error) == ("model_error", "The LoRA is not for this model.")


async def test_the_worker_announces_what_it_can_load(
    start_daemon, make_agent, post, wait_for, studio, database, tmp_path, configure
):
    served = configure("a", "b").model_copy(
        update={"jobs": make_settings(tmp_path / "data").jobs.model_copy(update={"heartbeat_s": 0.05})}
    )
    workers = WorkerStore(database)

    async def wait_for_models(*models: str) -> None:
        async with asyncio.timeout(WAIT_S):
            while [worker.models for worker in await workers.list_all()] != [models]:  # noqa: ASYNC110 - a worker tells it
                await asyncio.sleep(0.01)

    await start_daemon(served, studio.load)
    await wait_for_models("a", "b")
    studio.errors["b"] = ConfigError("no such folder")
    agent = await make_agent("alice")
    await wait_for(agent, (await post(served, agent, "b")).id)
    await wait_for_models("a")
