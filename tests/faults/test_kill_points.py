"""kill -9 at every system call that changes something, of either process, in the middle of each of its works."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest
import requests

from tests.conftest import picture_bytes
from tests.faults.ageing import TABLES, age_rows
from tests.faults.harness import Service, list_orphans, read_rows, wait_until
from tests.faults.points import (
    SOON,
    WAIT_S,
    Aims,
    Tally,
    every_aim,
    has_ended,
    kill_api,
    kill_worker,
    some_aims,
    start_api,
    start_worker,
)
from tests.faults.tracer import EVERY_CALL

MakeService = Callable[..., Service]

A_RUN = some_aims((2, "pwrite64"), (1, "rename"), (4, "fsync"))
AN_ENQUEUE = some_aims((1, "fsync"))
AN_UPLOAD = some_aims((1, "rename"))


def run_job(service: Service, tally: Tally, aims: Aims) -> None:
    """Claim, read a reference, progress, publish, complete."""
    start_api(service)
    reference = service.upload(picture_bytes()).json()["filename"]

    def submit(number: int) -> str:
        return service.post(seed=number, steps=2, reference_images=[reference]).json()["job_id"]

    kill_worker(service, tally, aims, submit)


def run_cancelled_job(service: Service, tally: Tally, aims: Aims) -> None:
    """The end of a run whose agent has cancelled it."""
    start_api(service)

    def prepare(number: int) -> None:
        job_id = service.post(seed=number, steps=50).json()["job_id"]
        wait_until(lambda: service.status(job_id)["state"] == "running", WAIT_S)

    def submit(_: int) -> str:
        job_id = service.told.jobs[-1]
        assert service.http.delete(f"{service.url}/api/v1/jobs/{job_id}", timeout=10).status_code == 200
        return job_id

    kill_worker(service, tally, aims, submit, prepare=prepare)
    for job_id in service.told.jobs:
        if (state := service.status(job_id)["state"]) != "cancelled":
            tally.blame("jobs_lost", f"{job_id} was to be cancelled and is {state}")


def enqueue(service: Service, tally: Tally, aims: Aims) -> None:
    """POST a job; where the connection broke, again under the same Idempotency-Key."""
    start_worker(service)

    def ask(number: int) -> bool:
        answer = service.post(idempotency_key=f"key-{number}", seed=number + 1, steps=1)
        return answer is not None and answer.status_code == 202

    kill_api(service, tally, aims, ask)
    for row in read_rows(service.data_dir, "SELECT seed, count(*) AS jobs FROM jobs GROUP BY seed HAVING jobs > 1"):
        tally.blame("published_twice", f"{row['jobs']} jobs of one Idempotency-Key, seed {row['seed']}")


def upload(service: Service, tally: Tally, aims: Aims) -> None:
    def ask(number: int) -> bool:
        answer = service.upload(picture_bytes(seed=number + 1))
        return answer is not None and answer.status_code == 200

    kill_api(service, tally, aims, ask)


def cancel(service: Service, tally: Tally, aims: Aims) -> None:
    """DELETE a job that waits; no worker runs, so nothing else may end it."""
    jobs: dict[int, str] = {}

    def ask(number: int) -> bool:
        with suppress(requests.RequestException):
            if number not in jobs:
                jobs[number] = service.post(seed=number + 1).json()["job_id"]
            answer = service.http.delete(f"{service.url}/api/v1/jobs/{jobs[number]}", timeout=10)
            return answer.status_code == 200 and answer.json()["state"] == "cancelled"
        return False

    def prepare_and_ask(number: int) -> bool:
        if number < 0:
            jobs[len(jobs)] = service.post(seed=len(jobs) + 1).json()["job_id"]
            return True
        return ask(number)

    kill_api(service, tally, aims, prepare_and_ask)
    ask(len(jobs) - 1)


def expire(service: Service, tally: Tally, aims: Aims) -> None:
    """Rows past their time go, then their files."""
    start_worker(service)

    def ask(number: int) -> bool:
        if number < 0:
            service.upload(picture_bytes(seed=len(tally.damages)))
            job_id = service.post(idempotency_key=str(len(tally.damages))).json()["job_id"]
            wait_until(lambda: has_ended(service, job_id), WAIT_S)
            return True
        age_everything(service)
        with suppress(requests.RequestException):
            wait_until(lambda: is_swept(service), WAIT_S)
            return True
        return False

    kill_api(service, tally, aims, ask)


def age_everything(service: Service) -> None:
    """Put the end of every kept row into the past; its agents have been promised nothing any more."""
    service.told.jobs.clear()
    service.told.completed.clear()
    service.told.uploads.clear()
    age_rows(service, *TABLES)


def is_swept(service: Service) -> bool:
    """Whether no row and no file is left. Raises RequestException when the web tier has died."""
    service.http.get(f"{service.url}/healthz", timeout=5)
    left = [f"(SELECT count(*) FROM {table})" for table in TABLES]
    rows_left = read_rows(service.data_dir, f"SELECT {' + '.join(left)} AS rows_left")[0]["rows_left"]
    return rows_left == 0 and not list_orphans(service.data_dir)


def sweep_orphans(service: Service, tally: Tally, aims: Aims) -> None:
    """Files that no row names go."""

    def ask(number: int) -> bool:
        if number < 0:
            for shelf in ("outputs", "references", "incoming"):
                (service.data_dir / "files" / shelf / f"junk-{len(tally.damages)}").write_bytes(b"junk")
            return True
        with suppress(requests.RequestException):
            wait_until(lambda: _answers(service) and not list_orphans(service.data_dir), WAIT_S)
            return True
        return False

    kill_api(service, tally, aims, ask)


def _answers(service: Service) -> bool:
    return service.http.get(f"{service.url}/healthz", timeout=5).ok


SHORT = [(run_job, A_RUN), (enqueue, AN_ENQUEUE), (upload, AN_UPLOAD)]
SWEEP_CALLS = tuple(call for call in EVERY_CALL if call not in ("sendto", "sendmsg"))
"""The test asks for the web tier's health all the time, and answers are no part of the sweep."""
FULL = [
    (run_job, EVERY_CALL),
    (run_cancelled_job, EVERY_CALL),
    (enqueue, EVERY_CALL),
    (upload, EVERY_CALL),
    (cancel, EVERY_CALL),
    (expire, SWEEP_CALLS),
    (sweep_orphans, SWEEP_CALLS),
]


@pytest.mark.parametrize(("work", "aims"), SHORT, ids=lambda value: getattr(value, "__name__", ""))
def test_a_kill_at_some_calls_of_a_work_leaves_no_trace(make_service: MakeService, work, aims) -> None:
    service, tally = make_service(**SOON), Tally(f"kill -9 at some calls: {work.__name__}")
    work(service, tally, aims)
    assert len(tally.struck) == len(list(aims))
    tally.finish(service)


@pytest.mark.faults
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("work", "calls"), FULL, ids=lambda value: getattr(value, "__name__", ""))
def test_a_kill_at_any_call_of_a_work_leaves_no_trace(make_service: MakeService, work, calls) -> None:
    service, tally = make_service(**SOON), Tally(f"kill -9 at every call: {work.__name__}")
    work(service, tally, every_aim(calls))
    tally.finish(service, note=", ".join(sorted({call.split()[1] for call in tally.struck})))
