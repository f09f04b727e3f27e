"""Many at once: limits, replays, several daemons on one store, fair order over a long queue."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.conftest import DEVELOPMENT_KEY, FakeClock, make_settings
from tests.faults.harness import Service, check, read_rows
from tests.faults.table import count_damage, record
from umrgen_core.agent_store import AgentStore
from umrgen_core.claim_store import ClaimStore
from umrgen_core.config import Settings
from umrgen_core.database import open_database
from umrgen_core.job_store import JobStore
from umrgen_core.keys import mint_key
from umrgen_core.loras import LoraShelf
from umrgen_core.names import new_job_id
from umrgen_core.requests import accept_request

MakeService = Callable[..., Service]
CROWD = 100
DAEMONS = 4


def post_at_once(service: Service, **headers: str) -> list[requests.Response]:
    """CROWD equal posts, each on a connection of its own, let go together."""
    together = threading.Barrier(CROWD)

    def post(_: int) -> requests.Response:
        together.wait()
        return requests.post(
            f"{service.url}/api/v1/generate",
            json={"prompt": "a star", "width": 64, "height": 64},
            headers={"Authorization": f"Bearer {DEVELOPMENT_KEY}", **headers},
            timeout=60,
        )

    with ThreadPoolExecutor(CROWD) as threads:
        answers = list(threads.map(post, range(CROWD)))
    accepted = {answer.json()["job_id"] for answer in answers if answer.status_code == 202}
    service.told.jobs += sorted(accepted - set(service.told.jobs))
    return answers


def finish(service: Service, case: str, **figures: Any) -> None:
    service.wait_ended(120)
    service.wait_swept()
    damage = check(service.data_dir, service.told)
    assert damage.found() == {}
    record(case, **count_damage([damage]), **figures)


def test_a_hundred_equal_posts_at_once_under_a_limit_of_one_are_one_job(make_service: MakeService) -> None:
    service = make_service(UMRGEN_LIMITS__CONCURRENT_JOBS="1")
    service.start_api()
    answers = post_at_once(service)
    assert Counter(answer.status_code for answer in answers) == {202: 1, 429: CROWD - 1}
    refusals = [answer.json() for answer in answers if answer.status_code == 429]
    assert {(body["code"], body["job_id"]) for body in refusals} == {("concurrent_limit", service.told.jobs[0])}
    service.start_infer()
    service.wait_ended()
    for _ in range(3):
        post_at_once(service)
    finish(service, "100 equal posts at once, limit 1", runs=4, points=4 * CROWD)
    rows = read_rows(service.data_dir, "SELECT created_at_us, finished_at_us FROM jobs ORDER BY seq")
    assert len(rows) == len(service.told.jobs)
    assert all(before["finished_at_us"] <= after["created_at_us"] for before, after in pairwise(rows))


def test_a_hundred_equal_posts_at_once_under_one_key_are_one_job_and_one_answer(make_service: MakeService) -> None:
    service = make_service()
    service.start_api()
    service.start_infer()
    answers = post_at_once(service, **{"Idempotency-Key": "one"})
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.content for answer in answers}) == 1
    assert sum("Idempotent-Replayed" not in answer.headers for answer in answers) == 1
    finish(service, "100 equal posts at once, one Idempotency-Key", points=CROWD)
    assert len(read_rows(service.data_dir, "SELECT id FROM jobs")) == 1


def share_a_queue(service: Service, count: int) -> None:
    """`count` queued jobs, four daemons on one store: each claimed once, each painted once."""
    service.start_api()
    for seed in range(count):
        assert service.post(seed=seed).status_code == 202
    daemons = [service.start("tests.faults.null_infer") for _ in range(DAEMONS)]
    for daemon in daemons:
        daemon.wait_for_event("model_ready", 60)
    finish(service, "four daemons on one store", points=count)
    rows = read_rows(service.data_dir, "SELECT state, attempts, fence, worker_id FROM jobs")
    assert Counter((row["state"], row["attempts"], row["fence"]) for row in rows) == {("completed", 1, 1): count}
    claimed = [event["job_id"] for daemon in daemons for event in daemon.events() if event["event"] == "run_started"]
    assert Counter(claimed) == Counter(service.told.jobs)
    if count > 100:
        assert len({row["worker_id"] for row in rows}) == DAEMONS


def test_four_daemons_on_one_store_claim_each_job_once(make_service: MakeService) -> None:
    share_a_queue(make_service(UMRGEN_JOBS__LEASE_S="10"), 24)


@pytest.mark.faults
def test_four_daemons_on_one_store_claim_each_of_many_jobs_once(make_service: MakeService) -> None:
    share_a_queue(make_service(UMRGEN_JOBS__LEASE_S="10"), 400)


class Queue:
    """Agents with queues of unequal length, the longest submitted first."""

    def __init__(self, settings: Settings, lengths: dict[str, int]) -> None:
        self._settings = settings
        self._lengths = lengths
        self.claim_s: list[float] = []
        self.served: list[int] = []

    async def work_off(self) -> None:
        async with AsyncExitStack() as exits:
            web, worker = [
                await exits.enter_async_context(open_database(self._settings, FakeClock())) for _ in ("web", "worker")
            ]
            await self._submit(AgentStore(web, self._settings.limits), JobStore(web, self._settings))
            claims = ClaimStore(worker, self._settings)
            began = time.perf_counter()
            while (claim := await claims.claim_next(self._settings.default_model, "worker")) is not None:
                self.claim_s.append(time.perf_counter() - began)
                self.served.append(claim.job.agent_id)
                began = time.perf_counter()

    async def _submit(self, agents: AgentStore, jobs: JobStore) -> None:
        request = accept_request({"prompt": "a star"}, self._settings.served_models, LoraShelf(""))
        for name, length in sorted(self._lengths.items(), key=lambda item: -item[1]):
            await agents.create_agent(name, f"sid_ext_{name}", key := mint_key())
            agent = await agents.find_by_key(key)
            assert agent is not None
            for _ in range(length):
                await jobs.enqueue(agent, new_job_id(), request, "crowd")

    def require_fairness(self) -> None:
        """An agent's k-th job comes before any other agent's k+1-st: all its k are served within k rounds."""
        lengths = Counter(self.served)
        assert sorted(lengths.values()) == sorted(self._lengths.values())
        so_far: Counter[int] = Counter()
        for position, agent in enumerate(self.served, 1):
            so_far[agent] += 1
            latest = sum(min(length, so_far[agent]) for length in lengths.values())
            assert position <= latest, f"job {so_far[agent]} of agent {agent} was served only as number {position}"

    def mean_ms(self, part: slice) -> float:
        times = self.claim_s[part]
        return 1000 * sum(times) / len(times)


def make_crowd_settings(tmp_path: Path) -> Settings:
    return make_settings(tmp_path / "data", limits={"queued_jobs": 20_000, "concurrent_jobs": 20_000})


async def test_a_long_queue_of_many_agents_is_served_in_fair_order(tmp_path: Path) -> None:
    queue = Queue(make_crowd_settings(tmp_path), {f"agent{i}": 1 + 3 * i for i in range(12)})
    await queue.work_off()
    queue.require_fairness()


@pytest.mark.faults
@pytest.mark.timeout(1200)
async def test_ten_thousand_jobs_of_two_hundred_agents_are_served_in_fair_order(tmp_path: Path) -> None:
    queue = Queue(make_crowd_settings(tmp_path), {f"agent{i:03}": 1 + i % 100 for i in range(198)} | {"a": 40, "b": 59})
    await queue.work_off()
    assert len(queue.served) == 10_000
    queue.require_fairness()
    first, last = queue.mean_ms(slice(0, 500)), queue.mean_ms(slice(-500, None))
    assert max(queue.claim_s) < 5
    note = f"a claim took {first:.2f} ms with 10,000 queued, {last:.2f} ms at the end"
    record("10,000 jobs of 200 agents: fair order", points=10_000, note=note)
    print(note)
