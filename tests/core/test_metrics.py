"""What both processes count, what is read of the store, and where it is shown."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from tests.conftest import FakeClock, make_settings
from umrgen_core import gpus
from umrgen_core.agents import Agent
from umrgen_core.backup import back_up
from umrgen_core.claim_store import ClaimStore
from umrgen_core.config import Settings
from umrgen_core.database import Database, open_database
from umrgen_core.errors import ConfigError, Unavailable
from umrgen_core.gpus import Gpu, Gpus, choose_visible, pynvml
from umrgen_core.job_store import JobStore
from umrgen_core.jobs import ErrorCode, JobState
from umrgen_core.loras import LoraShelf
from umrgen_core.metrics.job_count import SHORTEST_PAUSE_S, JobCount
from umrgen_core.metrics.labels import ENDS
from umrgen_core.metrics.listener import show_metrics
from umrgen_core.metrics.readings import KEPT_MS, StoreReadings
from umrgen_core.metrics.registry import make_registry
from umrgen_core.metrics.store import StoreMeter
from umrgen_core.names import new_job_id
from umrgen_core.queue_control import QueueControl
from umrgen_core.recovery_store import RecoveryStore
from umrgen_core.requests import accept_request
from umrgen_core.sqlite import open_writer
from umrgen_core.statements import load_statements
from umrgen_core.webhook_store import WebhookState, WebhookStore
from umrgen_core.worker_store import WorkerState, WorkerStore

Submit = Callable[..., Awaitable[str]]
MODEL = {"model": "tiny-klein"}


@pytest.fixture
def counted() -> CollectorRegistry:
    """What the store of `database` counts."""
    return CollectorRegistry()


@pytest.fixture
async def database(settings: Settings, clock: FakeClock, counted: CollectorRegistry) -> AsyncIterator[Database]:
    async with open_database(settings, clock, meter=StoreMeter(counted, settings.served_models)) as opened:
        yield opened


@pytest.fixture
def submit(jobs: JobStore, settings: Settings) -> Submit:
    async def put(agent: Agent) -> str:
        request = accept_request({"prompt": "a star"}, settings.served_models, LoraShelf(""))
        job, _ = await jobs.enqueue(agent, new_job_id(), request, "test")
        return job.id

    return put


@pytest.fixture
def readings(settings: Settings, clock: FakeClock, database: Database) -> CollectorRegistry:
    registry = CollectorRegistry()
    StoreReadings(settings, clock, database.statements).register(registry)
    return registry


async def test_the_state_of_the_service_is_read_of_the_store(
    readings: CollectorRegistry,
    settings: Settings,
    database: Database,
    claims: ClaimStore,
    clock: FakeClock,
    make_agent: Callable[..., Awaitable[Agent]],
    submit: Submit,
) -> None:
    agent = await make_agent("alice", concurrent_jobs=9)
    for _ in range(3):
        await submit(agent)
        clock.advance(10)
    await claims.claim_next("tiny-klein", "w")
    await WorkerStore(database).announce("w", 1, WorkerState.READY, ["tiny-klein"])
    await QueueControl(database).pause()
    clock.advance(5)
    read = readings.get_sample_value
    assert read("umrgen_queue_jobs", MODEL) == 2
    assert read("umrgen_queue_oldest_seconds", MODEL) == 25
    assert (read("umrgen_jobs", {"state": "queued"}), read("umrgen_jobs", {"state": "running"})) == (2, 1)
    assert (read("umrgen_queue_paused"), read("umrgen_queue_draining")) == (1, 0)
    assert (read("umrgen_workers", {"state": "ready"}), read("umrgen_workers", {"state": "loading"})) == (1, 0)
    assert read("umrgen_queue_limit") == settings.limits.queued_jobs
    assert read("umrgen_disk_free_bytes") > 0
    assert read("umrgen_store_database_bytes") > 0
    assert read("umrgen_store_readable") == 1

    clock.advance(settings.jobs.heartbeat_s * 3)  # nobody has heard of the worker since
    assert readings.get_sample_value("umrgen_workers", {"state": "ready"}) == 0


async def test_what_was_read_is_good_for_a_moment(
    readings: CollectorRegistry, clock: FakeClock, make_agent: Callable[..., Awaitable[Agent]], submit: Submit
) -> None:
    assert readings.get_sample_value("umrgen_queue_jobs", MODEL) == 0
    await submit(await make_agent("alice"))
    assert readings.get_sample_value("umrgen_queue_jobs", MODEL) == 0
    clock.advance(KEPT_MS / 1000)
    assert readings.get_sample_value("umrgen_queue_jobs", MODEL) == 1


async def test_a_store_that_cannot_be_read_is_told_as_such(
    readings: CollectorRegistry, settings: Settings, clock: FakeClock
) -> None:
    hidden = settings.storage.database.with_name("elsewhere")
    settings.storage.database.rename(hidden)
    assert readings.get_sample_value("umrgen_store_readable") == 0
    assert readings.get_sample_value("umrgen_queue_jobs", MODEL) is None
    assert readings.get_sample_value("umrgen_disk_free_bytes") is not None
    hidden.rename(settings.storage.database)
    clock.advance(KEPT_MS / 1000)
    assert readings.get_sample_value("umrgen_store_readable") == 1


async def test_a_backup_leaves_its_time(
    readings: CollectorRegistry, settings: Settings, clock: FakeClock, tmp_path: Path
) -> None:
    assert readings.get_sample_value("umrgen_backup_timestamp_seconds") is None
    began = time.time()
    back_up(settings.storage, tmp_path / "backup")
    clock.advance(KEPT_MS / 1000)
    assert began - 1 <= readings.get_sample_value("umrgen_backup_timestamp_seconds") <= time.time() + 1


async def test_ended_jobs_are_counted_aside_and_seldom(
    settings: Settings,
    database: Database,
    claims: ClaimStore,
    make_agent: Callable[..., Awaitable[Agent]],
    submit: Submit,
) -> None:
    count = JobCount(settings.storage.database, database.statements)
    count.read_ended()
    thread = count._thread
    thread.join(10)
    assert count.read_ended() == {JobState.COMPLETED: 0, JobState.FAILED: 0, JobState.CANCELLED: 0}
    await submit(await make_agent("alice"))
    await claims.fail(await claims.claim_next("tiny-klein", "w"), ErrorCode.TIMEOUT, "late", retryable=True)
    assert count.read_ended()[JobState.FAILED] == 0
    assert count._thread is thread
    assert count._due_s > time.monotonic() + SHORTEST_PAUSE_S - 20
    count._due_s = 0
    count.read_ended()
    count._thread.join(10)
    assert count.read_ended()[JobState.FAILED] == 1


async def test_every_way_back_into_the_queue_is_counted(
    settings: Settings,
    counted: CollectorRegistry,
    claims: ClaimStore,
    recovery: RecoveryStore,
    clock: FakeClock,
    make_agent: Callable[..., Awaitable[Agent]],
    submit: Submit,
) -> None:
    await submit(await make_agent("alice"))
    await claims.give_back(await claims.claim_next("tiny-klein", "w"))
    await claims.release(await claims.claim_next("tiny-klein", "w"), "The picture could not be saved")
    await claims.lose_device(await claims.claim_next("tiny-klein", "w"))
    await claims.claim_next("tiny-klein", "w")
    clock.advance(settings.jobs.lease_s + 1)
    await recovery.recover_lost()

    def read(name: str, **labels: str) -> float | None:
        return counted.get_sample_value(f"umrgen_jobs_{name}_total", {**MODEL, **labels})

    assert read("claimed") == 4
    assert read("requeued", reason="given_back") == 1
    assert read("requeued", reason="released") == 2
    assert read("requeued", reason="worker_lost") == 0  # that was its last attempt
    assert read("ended", state="failed", error_code="worker_lost") == 1


async def test_a_worker_that_was_lost_and_a_wait_in_vain_are_counted(
    settings: Settings,
    counted: CollectorRegistry,
    claims: ClaimStore,
    recovery: RecoveryStore,
    clock: FakeClock,
    make_agent: Callable[..., Awaitable[Agent]],
    submit: Submit,
) -> None:
    await submit(await make_agent("alice"))
    await claims.claim_next("tiny-klein", "w")
    clock.advance(settings.jobs.lease_s + 1)
    await recovery.recover_lost()
    clock.advance(settings.jobs.queue_ttl_s + 1)
    await recovery.recover_lost()
    lost = {**MODEL, "reason": "worker_lost"}
    assert counted.get_sample_value("umrgen_jobs_requeued_total", lost) == 1
    overdue = {**MODEL, "state": "failed", "error_code": "timeout"}
    assert counted.get_sample_value("umrgen_jobs_ended_total", overdue) == 1


async def test_attempts_at_webhooks_are_counted_by_what_came_of_them(
    counted: CollectorRegistry,
    database: Database,
    claims: ClaimStore,
    clock: FakeClock,
    make_agent: Callable[..., Awaitable[Agent]],
    submit: Submit,
) -> None:
    agent = await make_agent("alice")
    await submit(agent)
    await database.writer.run(lambda c: c.execute("UPDATE jobs SET callback_url = 'https://agent.example/hook'"))
    await claims.fail(await claims.claim_next("tiny-klein", "w"), ErrorCode.TIMEOUT, "late", retryable=True)
    store = WebhookStore(database)
    [delivery] = await store.claim({agent.id: 1}, 30)
    await store.retry(delivery, 5, "status 500")
    clock.advance(6)
    [delivery] = await store.claim({agent.id: 1}, 30)
    await store.end(delivery, WebhookState.DELIVERED, "status 200")
    tried = [
        counted.get_sample_value("umrgen_webhook_attempts_total", {"outcome": outcome})
        for outcome in ("delayed", "delivered", "failed")
    ]
    assert tried == [1, 1, 0]


def test_ended_jobs_that_could_not_be_counted_are_not_none(tmp_path: Path) -> None:
    count = JobCount(tmp_path / "nowhere", load_statements())
    for _ in range(2):
        assert count.read_ended() == {}
        count._thread.join(10)


@pytest.mark.parametrize("name", ["queue", "running", "workers", "control", "webhooks"])
def test_no_reading_takes_longer_for_the_jobs_that_have_ended(settings: Settings, name: str) -> None:
    connection = open_writer(settings.storage.database)
    sql = getattr(load_statements(), f"monitor_{name}").sql
    plan = [row["detail"] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", {"most": 1})]
    connection.close()
    partial = ("jobs_queued", "jobs_lease_until", "webhooks_due", "webhooks_failed")
    for step in plan:
        whole = step.startswith(("SCAN jobs", "SCAN webhooks"))
        assert not whole or any(f"INDEX {index}" in step for index in partial), plan


async def test_the_work_on_the_store_is_counted(settings: Settings, clock: FakeClock) -> None:
    registry = CollectorRegistry()
    meter = StoreMeter(registry, settings.served_models)
    async with open_database(settings, clock, meter=meter) as database:
        await database.integrity.wait()
        begun = registry.get_sample_value("umrgen_store_batch_items_sum")
        await database.writer.run(lambda c: c.execute("DELETE FROM workers"))
        await database.reader.all("SELECT 1")
        with pytest.raises(Unavailable):
            await database.writer.run(lambda c: c.execute("no SQL"))
        with pytest.raises(Unavailable):
            await database.reader.all("no SQL")
    assert registry.get_sample_value("umrgen_store_batch_items_sum") == begun + 2
    assert registry.get_sample_value("umrgen_store_transaction_seconds_count") >= 2
    assert registry.get_sample_value("umrgen_store_lock_wait_seconds_count") >= 2
    assert registry.get_sample_value("umrgen_store_read_seconds_count") >= 1
    assert registry.get_sample_value("umrgen_store_write_failures_total") == 1
    assert registry.get_sample_value("umrgen_store_read_failures_total") == 1


def test_every_end_of_a_job_has_its_series_from_the_start_and_a_stranger_none() -> None:
    registry = CollectorRegistry()
    meter = StoreMeter(registry, ["one", "two"])
    for model in ("one", "two"):
        for state, code in ENDS:
            labels = {"model": model, "state": state, "error_code": code}
            assert registry.get_sample_value("umrgen_jobs_ended_total", labels) == 0
    for n in range(50):
        meter.job_ended(f"served-once-{n}", JobState.FAILED, ErrorCode.TIMEOUT)
        meter.job_completed("one", {"total": 1.0, f"stage-{n}": 1.0}, {"caches": {f"cache-{n}": 1}})
    labels = {"model": "other", "state": "failed", "error_code": "timeout"}
    assert registry.get_sample_value("umrgen_jobs_ended_total", labels) == 50
    stages = [family for family in registry.collect() if family.name == "umrgen_job_stage_seconds"]
    assert {sample.labels["stage"] for sample in stages[0].samples} == {"total"}


def test_what_the_pipeline_had_encoded_before_is_counted() -> None:
    registry = CollectorRegistry()
    meter = StoreMeter(registry, ["one"])
    for counts in ({"prompt_hits": 2, "reference_misses": 1}, {"prompt_misses": 1}):
        meter.job_completed("one", {}, {"caches": counts})
    meter.job_completed("one", {}, {})
    read = {
        (cache, result): registry.get_sample_value(
            "umrgen_pipeline_cache_lookups_total", {"cache": cache, "result": result}
        )
        for cache in ("prompt", "reference")
        for result in ("hit", "miss")
    }
    assert read == {("prompt", "hit"): 2, ("prompt", "miss"): 1, ("reference", "hit"): 0, ("reference", "miss"): 1}


async def test_metrics_are_shown_where_the_settings_say_and_nowhere_else() -> None:
    registry = make_registry("api")
    async with show_metrics("api_listen", "", registry):
        pass
    with pytest.raises(ConfigError, match=r"\[metrics\] api_listen: cannot listen on 203.0.113.1:9108"):
        async with show_metrics("api_listen", "203.0.113.1:9108", registry):
            pass


async def test_metrics_are_answered_in_a_thread_of_their_own() -> None:
    async with show_metrics("api_listen", "127.0.0.1:0", make_registry("api")) as port:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:  # noqa: ASYNC210 - meant
            text = answer.read().decode()
    assert 'umrgen_build_info{process="api"' in text
    assert "process_start_time_seconds" in text
    assert "_created" not in text


@pytest.mark.parametrize(
    ("key", "address", "problem"),
    [
        ("api_listen", "127.0.0.1:3088", "needs a port of its own"),
        ("infer_listen", "0.0.0.0:9108", "needs a port of its own"),
        ("infer_listen", "127.0.0.1:65536", "at most 65535"),
        ("infer_listen", "9109", "pattern"),
        ("infer_listen", "http://127.0.0.1:9109", "pattern"),
    ],
)
def test_metrics_have_ports_of_their_own(tmp_path: Path, key: str, address: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        make_settings(tmp_path, metrics={"api_listen": "127.0.0.1:9108", key: address})


def test_a_free_port_may_be_asked_for_twice(tmp_path: Path) -> None:
    make_settings(tmp_path, api={"port": 0}, metrics={"api_listen": "127.0.0.1:0", "infer_listen": "[::1]:0"})


def gpu(index: int) -> Gpu:
    return Gpu(index, f"GPU-{index}0c5", "a card", 1, 2, 0.5, 40, 100.0)


@pytest.mark.parametrize(
    ("visible", "seen"),
    [
        ("", [0, 1, 2]),
        ("1", [1]),
        ("2, 0", [0, 2]),
        ("GPU-10", [1]),
        ("MIG-abc", [0, 1, 2]),
        ("3", []),
        ("GPU-9", []),
        ("-1", []),
        ("3,MIG-abc", [0, 1, 2]),
    ],
)
def test_a_process_is_shown_the_devices_that_it_may_use(visible: str, seen: list[int]) -> None:
    chosen = choose_visible([gpu(index) for index in range(3)], {"CUDA_VISIBLE_DEVICES": visible})
    assert [one.index for one in chosen] == seen


class Driver:
    """A driver of two devices; `lost` are those that answer nothing but an error."""

    def __init__(self, *lost: int) -> None:
        self.lost = lost
        self.opened = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(pynvml, name) if name.startswith("NVML") else partial(self._answer, name)

    def _answer(self, name: str, index: int = 0, *_: object) -> object:
        if name == "nvmlInit":
            self.opened += 1
        if name == "nvmlDeviceGetMemoryInfo" and index in self.lost:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        known = {"nvmlDeviceGetCount": 2, "nvmlDeviceGetHandleByIndex": index, "nvmlDeviceGetPowerUsage": 7000}
        return known.get(name, SimpleNamespace(used=1, total=2, gpu=50))


@pytest.mark.skipif(gpus.pynvml is None, reason="nvidia-ml-py is not installed: pip install nvidia-ml-py")
def test_a_device_that_is_lost_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver(1)
    monkeypatch.setattr(gpus, "pynvml", driver)
    opened = Gpus()
    seen = [[one.index for one in opened.read() or []] for _ in range(2)]
    assert (seen, driver.opened) == ([[0], [0]], 1)
    driver.lost = (0, 1)
    assert opened.read() is None
    driver.lost = ()  # another driver was loaded
    assert [one.index for one in opened.read() or []] == [0, 1]
    assert driver.opened == 2


def test_a_machine_without_a_driver_has_no_devices_to_tell_of() -> None:
    opened = Gpus()
    read = opened.read()
    opened.close()
    assert read is None or all(0 <= one.index < len(read) for one in read)
    assert (read is None) is not Path("/dev/nvidiactl").exists()
