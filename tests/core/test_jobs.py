from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from umrgen_core.jobs import TRANSITIONS, JobState
from umrgen_core.schema import ensure_store
from umrgen_core.sqlite import Connection, IntegrityError, Row, open_writer
from umrgen_core.statements import load_statements

QUEUED, RUNNING, COMPLETED, FAILED, CANCELLED = JobState
PAIRS = list(itertools.product(JobState, JobState))

NEW = {
    "id": "ext_1",
    "agent_id": 1,
    "model": "tiny-klein",
    "prompt": "a star",
    "negative": "",
    "width": 64,
    "height": 64,
    "steps": 4,
    "seed": 1,
    "reference_names": "[]",
    "ignored": "[]",
    "request_id": "r",
    "created_at_us": 1,
    "queue_boot_id": "boot-1",
    "queue_until_boot_ms": 10,
}
HELD = {"fence": 1, "attempts": 1, "worker_id": "w", "started_at_us": 2}
LEASE = {"lease_boot_id": "boot-1", "lease_until_boot_ms": 10}
ENDED = {**HELD, "finished_at_us": 3, "expires_at_us": 4}
ROWS: dict[JobState, dict[str, Any]] = {
    QUEUED: {},
    RUNNING: {**HELD, **LEASE},
    COMPLETED: {**ENDED, "output_id": 1, "timings": "{}"},
    FAILED: {**ENDED, "error_code": "timeout", "error": "Too long.", "retryable": 1},
    CANCELLED: {**ENDED, "cancel_requested_at_us": 2},
}
# Every circumstance that a statement asks for, so that nothing but its guard on the state can refuse.
MOMENT = {
    "seq": 1,
    "id": "ext_1",
    "agent_id": 1,
    "worker_id": "w",
    "boot_id": "boot-1",
    "now_boot_ms": 1000,
    "now_us": 1000,
    "lease_until_boot_ms": 2000,
    "queue_until_boot_ms": 2000,
    "expires_at_us": 2000,
    "step": 2,
    "output_id": 2,
    "timings": "{}",
    "ran_with": "{}",
    "error_code": "timeout",
    "error": "Too long.",
    "retryable": 1,
    "attempts_undone": 1,
}


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    data_dir: Path = tmp_path_factory.mktemp("data")
    ensure_store(data_dir, data_dir / "umrgen.sqlite3")
    connection = open_writer(data_dir / "umrgen.sqlite3")
    connection.execute("INSERT INTO agents (id, name, session_id, created_at_us) VALUES (1, 'a', 'sid_ext_a', 0)")
    for number in (1, 2):
        connection.execute(
            "INSERT INTO outputs (agent_id, filename, disk_name, width, height, bytes, sha256, created_at_us,"
            " expires_at_us) VALUES (1, ?, ?, 64, 64, 1, ?, 0, 1)",
            [f"{number}.png", f"{number}.png", "0" * 64],
        )
    yield connection
    connection.close()


@pytest.fixture(autouse=True)
def _undone(connection: Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    yield
    connection.execute("ROLLBACK")


def put_job(connection: Connection, like: JobState, **changes: Any) -> Row:
    values = {**NEW, **ROWS[like], "state": like, **changes}
    connection.execute("DELETE FROM jobs")
    connection.execute(
        f"INSERT INTO jobs (seq, {', '.join(values)}) VALUES (1, {', '.join(f':{name}' for name in values)})", values
    )
    return read_job(connection)


def read_job(connection: Connection) -> Row:
    return connection.execute("SELECT * FROM jobs").fetchone()


def list_changes() -> dict[str, str]:
    """Every statement of the store that changes the row of a job, by name."""
    statements = load_statements()
    texts = {name: getattr(statements, name).sql for name in statements.available_queries if "_cursor" not in name}
    return {name: text for name, text in texts.items() if re.search(r"\bUPDATE jobs\b", text)}


def list_circumstances(state: JobState) -> list[dict[str, Any]]:
    """Columns besides the state that may stand one way or the other."""
    return [{}, {"cancel_requested_at_us": 2}] if state == RUNNING else [{}]


def drive(connection: Connection, before: JobState) -> Iterator[tuple[str, Row, Row]]:
    """The row before and after each statement of the store, in each circumstance."""
    for changes, (name, text) in itertools.product(list_circumstances(before), list_changes().items()):
        earlier = put_job(connection, before, **changes)
        connection.execute(text, {**MOMENT, "fence": earlier["fence"]}).fetchall()
        yield name, earlier, read_job(connection)


def moved(earlier: Row, later: Row) -> bool:
    """A job moves when its state changes, or when it is handed out (again) under a new fence."""
    return (earlier["state"], earlier["fence"]) != (later["state"], later["fence"])


def test_every_kind_of_statement_is_driven() -> None:
    assert list_changes().keys() >= {"claim", "heartbeat", "put_progress", "complete", "fail", "cancel_running"}
    assert list_changes().keys() >= {"give_back", "fail_overdue", "restart_queue_time"}


@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_exactly_the_drawn_transitions_can_happen(connection: Connection, before: JobState, after: JobState) -> None:
    by = [
        name for name, earlier, later in drive(connection, before) if moved(earlier, later) and later["state"] == after
    ]
    assert bool(by) == (after in TRANSITIONS[before]), by


@pytest.mark.parametrize("state", [state for state in JobState if state.ended])
def test_nothing_changes_a_job_that_has_ended(connection: Connection, state: JobState) -> None:
    for name, earlier, later in drive(connection, state):
        assert tuple(later) == tuple(earlier), name


@pytest.mark.parametrize("fence", [0, 2])
def test_nothing_moves_a_running_job_under_another_fence(connection: Connection, fence: int) -> None:
    held = [text for text in list_changes().values() if ":fence" in text]
    assert len(held) >= 6
    for text in held:
        earlier = put_job(connection, RUNNING)
        connection.execute(text, {**MOMENT, "fence": fence}).fetchall()
        assert tuple(read_job(connection)) == tuple(earlier), text


def test_three_states_are_ends() -> None:
    assert {state for state in JobState if state.ended} == {COMPLETED, FAILED, CANCELLED}
    assert TRANSITIONS.keys() == set(JobState)


@pytest.mark.parametrize("state", JobState)
def test_a_row_as_the_statements_leave_it_is_accepted(connection: Connection, state: JobState) -> None:
    assert put_job(connection, state)["state"] == state


@pytest.mark.parametrize(
    ("state", "changes"),
    [
        (COMPLETED, {"output_id": None}),
        (COMPLETED, {"timings": None}),
        (COMPLETED, {"finished_at_us": None}),
        (COMPLETED, {"finished_at_us": None, "expires_at_us": None}),
        (COMPLETED, {"expires_at_us": None}),
        (COMPLETED, {"cancel_requested_at_us": 2}),
        (COMPLETED, {"error_code": "timeout"}),
        (COMPLETED, LEASE),
        (FAILED, {"error_code": None}),
        (FAILED, {"error": None}),
        (FAILED, {"retryable": None}),
        (FAILED, {"retryable": 2}),
        (FAILED, {"finished_at_us": None, "expires_at_us": None}),
        (FAILED, {"output_id": 1}),
        (FAILED, LEASE),
        (CANCELLED, {"finished_at_us": None, "expires_at_us": None}),
        (CANCELLED, {"expires_at_us": None}),
        (CANCELLED, {"output_id": 1}),
        (CANCELLED, {"error_code": "timeout"}),
        (CANCELLED, LEASE),
        (RUNNING, {"lease_until_boot_ms": None}),
        (RUNNING, {"lease_boot_id": None}),
        (RUNNING, {"worker_id": None}),
        (RUNNING, {"started_at_us": None}),
        (RUNNING, {"fence": 0, "attempts": 0}),
        (RUNNING, {"finished_at_us": 3, "expires_at_us": 4}),
        (RUNNING, {"output_id": 1}),
        (QUEUED, LEASE),
        (QUEUED, {"finished_at_us": 3, "expires_at_us": 4}),
        (QUEUED, {"expires_at_us": 4}),
        (QUEUED, {"output_id": 1}),
        (QUEUED, {"error_code": "timeout"}),
        (QUEUED, {"attempts": 1}),
        (QUEUED, {"attempts": -1}),
        (QUEUED, {"step": -1}),
        (QUEUED, {"width": 63}),
        (QUEUED, {"height": 2049}),
        (QUEUED, {"steps": 0}),
        (QUEUED, {"seed": 2**53}),
    ],
)
def test_an_impossible_row_is_refused(connection: Connection, state: JobState, changes: dict[str, Any]) -> None:
    with pytest.raises(IntegrityError, match="CHECK constraint failed"):
        put_job(connection, state, **changes)


def test_a_state_that_is_none_of_the_five_is_refused(connection: Connection) -> None:
    with pytest.raises(IntegrityError, match="CHECK constraint failed"):
        put_job(connection, QUEUED, state="paused")


def test_two_jobs_never_share_a_picture(connection: Connection) -> None:
    put_job(connection, COMPLETED)
    values = {**NEW, **ROWS[COMPLETED], "state": COMPLETED, "id": "ext_2"}
    with pytest.raises(IntegrityError, match=r"UNIQUE constraint failed: jobs\.output_id"):
        connection.execute(
            f"INSERT INTO jobs ({', '.join(values)}) VALUES ({', '.join('?' * len(values))})", [*values.values()]
        )
