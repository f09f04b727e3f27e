"""Checks of the checkers: each mutant breaks one rule and must be caught by what the real code passes."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Callable

import pytest

from tests.faults.harness import Service, wait_until
from tests.faults.points import SOON, WAIT_S, Tally, kill_worker, some_aims, start_api, start_worker
from tests.faults.table import record
from tests.faults.tracer import Tracer
from umrgen_cli.processes import Daemon

MakeService = Callable[..., Service]
SETTINGS = {**SOON, "NULL_PAINTER_STEP_S": "0.05"}

REAL = "tests.faults.mutants.null_hand"
ROW_BEFORE_FILE = "tests.faults.mutants.row_before_file"
NO_FENCE = "tests.faults.mutants.no_fence"


def kill_while_publishing(service: Service, tally: Tally, module: str) -> None:
    """kill -9 before the file is renamed to its place: has its row come first?"""
    start_api(service)

    def submit(number: int) -> str:
        return service.post(seed=number, steps=1).json()["job_id"]

    kill_worker(service, tally, some_aims((1, "rename")), submit, module)


def sleep_through_the_lease(service: Service, tally: Tally, module: str) -> None:
    """SIGSTOP while the picture is being written, a second worker finishes the job, SIGCONT."""
    start_api(service)
    first = start_worker(service, module)
    for seed in range(9):
        if freeze_while_saving(service, first, seed):
            break
    tally.struck.append("SIGSTOP")
    start_worker(service, module)
    service.wait_ended()
    os.kill(first.process.pid, signal.SIGCONT)
    wait_until(lambda: [e["event"] for e in first.events()].count("run_ended") == len(service.told.jobs), WAIT_S)
    tally.look(service)


def freeze_while_saving(service: Service, worker: Daemon, seed: int) -> bool:
    """Freeze the worker at the write of its picture; False if it happened to hold the store's lock, so runs on."""
    tracer = Tracer(worker.process.pid, 1, "stop", ("write",))
    service.post(seed=seed, steps=1)
    tracer.wait_struck()
    tracer.wait_frozen()
    tracer.close()
    try:
        with open(service.data_dir / "store.lock", "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except BlockingIOError:
        os.kill(worker.process.pid, signal.SIGCONT)
        service.wait_ended()
        return False


SCENARIOS = [kill_while_publishing, sleep_through_the_lease]
MUTANTS = [(kill_while_publishing, ROW_BEFORE_FILE), (sleep_through_the_lease, NO_FENCE)]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_the_real_code_passes_what_catches_a_mutant(make_service: MakeService, scenario) -> None:
    service, tally = make_service(**SETTINGS), Tally(f"control of the mutants: {scenario.__name__}")
    scenario(service, tally, REAL)
    tally.finish(service)


@pytest.mark.parametrize(("scenario", "mutant"), MUTANTS, ids=["row_before_file", "no_fence"])
def test_a_mutant_is_caught(make_service: MakeService, scenario, mutant) -> None:
    service, tally = make_service(**SETTINGS), Tally("")
    scenario(service, tally, mutant)
    assert any("pictures_bad" in found for found in tally.found()), "the mutant went unnoticed"
    record(f"mutant caught: {mutant.rsplit('.', 1)[-1]}", points=1, note="caught: a row whose file is not as it says")
