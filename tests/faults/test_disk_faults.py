"""Disks that are full, fail or refuse; file size limits; a WAL that cannot be emptied."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pysqlite3
import pytest

from tests.conftest import picture_bytes
from tests.faults.ageing import age_rows
from tests.faults.disks import mounted_tmpfs, needs_root
from tests.faults.harness import Service, wait_until
from tests.faults.points import (
    SOON,
    WAIT_S,
    Aims,
    Tally,
    every_aim,
    fail_calls,
    has_ended,
    some_aims,
    start_api,
    start_worker,
)
from tests.faults.tracer import DISK_CALLS

MakeService = Callable[..., Service]

MIB = 1 << 20
SMALL_DISK_MB = 48
GUARDED = {"UMRGEN_STORAGE__DISK_FLOOR_BYTES": str(8 * MIB), "UMRGEN_STORAGE__BALLAST_BYTES": str(4 * MIB)}


def refuse_worker(service: Service, tally: Tally, error: str, aims: Aims) -> None:
    """One call of a run fails: the job ends well all the same."""
    start_api(service)
    reference = service.upload(picture_bytes()).json()["filename"]

    def ask(number: int) -> bool:
        answer = service.post(seed=number, steps=2, reference_images=[reference])
        wait_until(lambda: has_ended(service, answer.json()["job_id"]), WAIT_S)
        return service.status(answer.json()["job_id"])["state"] == "completed"

    fail_calls(service, tally, aims, error, start_worker, ask)


def refuse_enqueue(service: Service, tally: Tally, error: str, aims: Aims) -> None:
    """One call of an enqueue fails: 503 or 202, and one job in the end."""
    start_worker(service)

    def ask(number: int) -> bool:
        answer = service.post(idempotency_key=f"key-{number}", seed=number + 1, steps=1)
        return accept(tally, answer, 202)

    fail_calls(service, tally, aims, error, start_api, ask)


def refuse_upload(service: Service, tally: Tally, error: str, aims: Aims) -> None:
    def ask(number: int) -> bool:
        return accept(tally, service.upload(picture_bytes(seed=number + 1)), 200)

    fail_calls(service, tally, aims, error, start_api, ask)


def accept(tally: Tally, answer, status: int) -> bool:
    """Whether it was done; anything but done or 503 is damage."""
    if answer is None or answer.status_code not in (status, 503):
        tally.blame("database", f"answered {answer and (answer.status_code, answer.text)}")
    return answer is not None and answer.status_code == status


WORKS = [refuse_worker, refuse_enqueue, refuse_upload]
SOME = {
    refuse_worker: some_aims((1, "fsync"), (1, "rename")),
    refuse_enqueue: some_aims((1, "fsync")),
    refuse_upload: some_aims((1, "rename")),
}


@pytest.mark.parametrize("work", WORKS, ids=lambda work: work.__name__)
def test_a_refusal_of_some_calls_breaks_nothing(make_service: MakeService, work) -> None:
    service, tally = make_service(**SOON), Tally(f"EIO at some calls: {work.__name__}")
    work(service, tally, "EIO", SOME[work])
    tally.finish(service)


@pytest.mark.faults
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
@pytest.mark.parametrize("work", WORKS, ids=lambda work: work.__name__)
def test_a_refusal_of_any_disk_call_breaks_nothing(make_service: MakeService, work, error: str) -> None:
    service, tally = make_service(**SOON), Tally(f"{error} at every disk call: {work.__name__}")
    work(service, tally, error, every_aim(DISK_CALLS))
    tally.finish(service)


@pytest.mark.parametrize("relief", ["room", "expiry"])
@needs_root
def test_a_full_disk_refuses_writes_serves_reads_and_recovers_by_itself(tmp_path: Path, relief: str) -> None:
    with ExitStack() as exits:
        disk = exits.enter_context(mounted_tmpfs(tmp_path / "disk", SMALL_DISK_MB))
        service = Service(disk / "data", exits, **SOON, **GUARDED)
        service._logs = tmp_path / "logs"
        tally = Tally(f"full disk, relief by {relief}", struck=["filled"])
        start_api(service)
        start_worker(service)
        ballast = service.data_dir / "ballast"
        wait_until(ballast.exists, WAIT_S)
        for seed in range(4):
            assert service.upload(picture_bytes(1000, 1000, seed=seed)).status_code == 200
        service.post()
        service.wait_ended()
        service.post(seed=5)
        fill(disk / "filler")
        wait_until(lambda: not ballast.exists(), WAIT_S)
        began = time.monotonic()
        assert service.post().status_code == 503
        assert service.upload(picture_bytes()).status_code == 503
        done = service.status(service.told.jobs[0])
        assert service.http.get(service.url + done["image_url"], timeout=10).status_code == 200
        assert service.http.get(f"{service.url}/healthz", timeout=10).status_code == 200
        if relief == "room":
            (disk / "filler").unlink()
        else:
            age_rows(service, '"references"')
            service.told.uploads.clear()
        wait_until(lambda: service.post().status_code == 202, WAIT_S)
        service.wait_ended()
        tally.recovery_s.append(time.monotonic() - began)
        if relief == "room":
            wait_until(ballast.exists, WAIT_S)
        tally.finish(service)


def fill(path: Path) -> None:
    """Write until the disk has no byte left."""
    with open(path, "wb", buffering=0) as file:
        for size in (MIB, 4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


def test_a_file_size_limit_refuses_writes_and_is_forgotten_when_lifted(make_service: MakeService) -> None:
    service = make_service(**SOON)
    tally = Tally("RLIMIT_FSIZE of both processes", struck=["4096 bytes"])
    processes = [start_api(service), start_worker(service)]
    service.post()
    service.wait_ended()
    service.post(steps=50)
    limit_files(processes, 4096)
    began = time.monotonic()
    assert service.post().status_code == 503
    assert service.upload(picture_bytes()).status_code == 503
    assert service.status(service.told.jobs[0])["state"] == "completed"
    time.sleep(1)
    limit_files(processes, resource.RLIM_INFINITY)
    wait_until(lambda: service.post().status_code == 202, WAIT_S)
    service.wait_ended()
    tally.recovery_s.append(time.monotonic() - began)
    assert [process.process.poll() for process in processes] == [None, None]
    tally.finish(service)


def limit_files(processes, most: int) -> None:
    for process in processes:
        resource.prlimit(process.process.pid, resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))


@pytest.mark.faults
def test_a_wal_that_a_reader_holds_grows_and_is_used_anew_once_the_reader_has_gone(make_service: MakeService) -> None:
    service = make_service(**SOON)
    start_api(service)
    start_worker(service)
    for seed in range(50):
        service.post(seed=seed, steps=1, prompt="star " * 100)
    service.wait_ended()
    database = service.data_dir / "umrgen.sqlite3"
    reader = pysqlite3.connect(str(database), isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM jobs").fetchone()
    wal, held = database.with_name(database.name + "-wal"), 24 * MIB
    while wal.stat().st_size < held:
        rewrite_jobs(database, 50)
    assert service.post().status_code == 202
    service.wait_ended()
    grown = wal.stat().st_size
    reader.close()
    began = time.monotonic()
    for seed in range(20):  # the first commits empty it into the database, the next begin it anew
        service.post(seed=seed)
    service.wait_ended()
    tally = Tally("WAL under an open reader", struck=["reader"], recovery_s=[time.monotonic() - began])
    emptied = wal.stat().st_size
    rewrite_jobs(database, 100)
    assert (emptied - grown < MIB, wal.stat().st_size) == (True, emptied)
    tally.finish(service, note=f"grew to {grown >> 20} MiB, then no further")


def rewrite_jobs(database: Path, times: int) -> None:
    """Commits that write every page of jobs, and leave the WAL to the service."""
    connection = pysqlite3.connect(str(database), timeout=10, isolation_level=None)
    connection.execute("PRAGMA wal_autocheckpoint=0")
    connection.execute("PRAGMA synchronous=OFF")
    for _ in range(times):
        connection.execute("UPDATE jobs SET prompt = iif(prompt = upper(prompt), lower(prompt), upper(prompt))")
    connection.close()
