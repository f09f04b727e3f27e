"""A random history against a small model of the contract, on the real stores.

HISTORY_MINUTES makes the full version run that long, HISTORY_SEED says where it begins; each round prints its seed.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.faults.history import forget_template
from tests.faults.history_rules import History
from tests.faults.table import record
from umrgen_core import claim_store, job_ends
from umrgen_core.admission import Admission
from umrgen_core.job_ends import JobEnds
from umrgen_core.sqlite import Connection

CHECKS = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much, HealthCheck.large_base_example]


@pytest.fixture(autouse=True)
def template() -> Iterator[None]:
    yield
    forget_template()


def run_history(examples: int, steps: int, number: int, phases: tuple[Phase, ...] = tuple(Phase)) -> None:
    """One round; its seed makes the same round again."""
    chosen = settings(
        max_examples=examples,
        stateful_step_count=steps,
        phases=phases,
        deadline=None,
        database=None,
        suppress_health_check=CHECKS,
    )
    run_state_machine_as_test(seed(number)(type("History", (History,), {})), settings=chosen)


def test_a_random_history_keeps_the_contract() -> None:
    run_history(30, 30, 20261122)


def end_without_freeing_pins(self: JobEnds, connection: Connection, job_id: str, fence: int) -> None:
    now_us = self._db.clock.wall_us()
    self._db.statements.cancel_running(connection, id=job_id, fence=fence, now_us=now_us, expires_at_us=now_us)


def requeue_without_undoing(self: JobEnds, connection: Connection, job_id: str, fence: int, **_: int) -> None:
    self._db.statements.give_back(
        connection,
        id=job_id,
        fence=fence,
        attempts_undone=0,
        boot_id=self._db.clock.boot_id,
        queue_until_boot_ms=self.queue_until_ms(),
    )


MUTANTS = {
    "a cancel keeps its pins": (JobEnds, "cancel", end_without_freeing_pins),
    "a job given back keeps its attempt": (JobEnds, "requeue", requeue_without_undoing),
    "no limits": (Admission, "check_limits", lambda *_: None),
    "no fence": (claim_store, "require_held", lambda row, *_: row or {"cancel_requested_at_us": None}),
    "no fence at the end": (job_ends, "require_held", lambda row, *_: row),
}


@pytest.mark.faults
@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_random_history_catches_a_store_that_is_wrong(monkeypatch: pytest.MonkeyPatch, mutant: str) -> None:
    where, name, wrong = MUTANTS[mutant]
    monkeypatch.setattr(where, name, wrong)
    with pytest.raises(AssertionError):
        run_history(60, 40, 1, (Phase.generate,))
    record(f"mutant of the store: {mutant}", note="caught by the random history")


@pytest.mark.faults
@pytest.mark.timeout(0)
def test_a_long_random_history_keeps_the_contract() -> None:
    ends = time.monotonic() + 60 * float(os.environ.get("HISTORY_MINUTES", "2"))
    number = int(os.environ.get("HISTORY_SEED", random.SystemRandom().randrange(2**32)))
    rounds = 0
    while time.monotonic() < ends:
        print(f"HISTORY_SEED={number + rounds}")
        run_history(50, 60, number + rounds)
        rounds += 1
    record(
        "random history",
        runs=rounds,
        points=rounds * 50 * 60,
        jobs_lost=0,
        published_twice=0,
        dangling=0,
        slots_leaked=0,
    )
