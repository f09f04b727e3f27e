"""The harness itself, and the faults that need no tools."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pysqlite3
import pytest

from tests.conftest import picture_bytes
from tests.faults.harness import Service, check, read_rows, wait_until
from tests.faults.table import record

MakeService = Callable[..., Service]


def finish(service: Service) -> None:
    service.wait_ended()
    service.wait_swept()
    assert check(service.data_dir, service.told).found() == {}


def test_an_undisturbed_run_passes_every_check(make_service: MakeService) -> None:
    service = make_service()
    service.start_api()
    service.start_infer()
    uploaded = service.upload(picture_bytes())
    for seed in range(5):
        service.post(seed=seed, reference_images=[uploaded.json()["filename"]])
    finish(service)
    assert len(service.told.completed) == 5


@pytest.mark.parametrize("fault", ["garbage", "size"])
def test_what_is_not_the_picture_asked_for_fails_and_publishes_nothing(make_service: MakeService, fault: str) -> None:
    service = make_service()
    service.start_api()
    service.start_infer(NULL_PAINTER_FAULT=fault)
    service.post()
    service.wait_ended()
    status = service.status(service.told.jobs[0])
    assert (status["state"], status["error_code"]) == ("failed", "model_error")
    finish(service)


def test_a_job_that_kills_its_worker_every_time_fails_and_costs_its_neighbour_nothing(
    make_service: MakeService,
) -> None:
    service = make_service(UMRGEN_JOBS__MAX_ATTEMPTS="3")
    service.start_api()
    poison = service.post(prompt="poison").json()["job_id"]
    neighbour = service.post(prompt="a star").json()["job_id"]
    deaths = 0
    while service.status(poison)["state"] != "failed":
        worker = service.start_infer(NULL_PAINTER_FAULT="kill_poisoned")
        alive = worker.process.poll
        wait_until(lambda ended=alive: ended() is not None or service.status(poison)["state"] == "failed", 30)
        deaths += worker.process.poll() is not None
        assert deaths <= 3
    if worker.process.poll() is not None:
        service.start_infer()
    finish(service)
    assert service.status(poison)["error_code"] == "worker_lost"
    assert (deaths, service.status(poison)["attempts"], service.status(neighbour)["attempts"]) == (3, 3, 1)


def test_a_job_that_hangs_is_failed_at_its_deadline_and_its_worker_replaced(make_service: MakeService) -> None:
    service = make_service(UMRGEN_JOBS__DEADLINE_S="1")
    service.start_api()
    worker = service.start_infer(NULL_PAINTER_FAULT="hang")
    service.post()
    wait_until(lambda: worker.process.poll() is not None, 30)
    assert worker.process.returncode == 1
    status = service.status(service.told.jobs[0])
    assert (status["state"], status["error_code"], status["retryable"]) == ("failed", "timeout", True)
    service.start_infer()
    service.post()
    finish(service)


def test_a_frozen_worker_leaves_nothing_when_it_wakes(make_service: MakeService) -> None:
    service = make_service(NULL_PAINTER_STEP_S="0.3")
    service.start_api()
    first = service.start_infer()
    job_id = service.post(seed=7).json()["job_id"]
    wait_until(lambda: service.status(job_id)["state"] == "running", 20)
    os.kill(first.process.pid, signal.SIGSTOP)
    service.start_infer()
    service.wait_ended()
    done = service.status(job_id)
    assert (done["state"], done["attempts"]) == ("completed", 2)
    os.kill(first.process.pid, signal.SIGCONT)
    first.wait_for_event("run_ended", 20)
    assert service.status(job_id) == done
    finish(service)


def test_a_damaged_output_is_never_served_as_good(make_service: MakeService) -> None:
    service = make_service()
    service.start_api()
    service.start_infer()
    job_id = service.post().json()["job_id"]
    service.wait_ended()
    url = service.url + service.status(job_id)["image_url"]
    assert service.http.get(url, timeout=10).status_code == 200
    (row,) = read_rows(service.data_dir, "SELECT disk_name FROM outputs")
    path = service.data_dir / "files" / "outputs" / row["disk_name"]
    content = path.read_bytes()
    path.write_bytes(content[:-20] + bytes(20))
    assert service.http.get(url, timeout=10).status_code == 404
    path.write_bytes(content)
    assert service.http.get(url, timeout=10).status_code == 200


def test_writes_answer_503_in_bounded_time_while_another_process_holds_the_lock(make_service: MakeService) -> None:
    import fcntl

    service = make_service(UMRGEN_STORAGE__LOCK_TIMEOUT_S="0.5")
    service.start_api()
    with open(service.data_dir / "store.lock", "rb+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        answer = service.post()
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        assert answer.elapsed.total_seconds() < 5
        assert service.http.get(f"{service.url}/healthz", timeout=5).status_code == 200
    wait_until(lambda: service.post().status_code == 202, 20)
    service.start_infer()
    finish(service)


@pytest.mark.parametrize("held_s", [3.0, pytest.param(10.0, marks=pytest.mark.faults)])
def test_a_database_locked_by_a_foreign_program_costs_503s_and_no_job(make_service: MakeService, held_s: float) -> None:
    service = make_service(UMRGEN_STORAGE__LOCK_TIMEOUT_S="0.5")
    service.start_api()
    service.start_infer()
    service.post()
    foreign = pysqlite3.connect(service.data_dir / "umrgen.sqlite3", isolation_level=None)
    foreign.execute("BEGIN IMMEDIATE")  # knows nothing of store.lock
    until = time.monotonic() + held_s
    refused = 0
    while time.monotonic() < until:
        answer = service.post()
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        assert answer.elapsed.total_seconds() < 3
        refused += 1
    assert service.http.get(f"{service.url}/healthz", timeout=5).status_code == 200
    foreign.execute("ROLLBACK")
    foreign.close()
    wait_until(lambda: service.post().status_code == 202, 30)
    finish(service)
    record("database locked by another program", runs=1, points=refused)
