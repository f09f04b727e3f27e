from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from umrgen_core.schema import ensure_store
from umrgen_core.sqlite import Connection, open_writer
from umrgen_core.statements import load_statements

TABLES = {"agents", "api_keys", "jobs", "job_references", "references", "outputs"}

# Every value that a statement may ask for; plans do not depend on them.
VALUES: dict[str, Any] = {
    **dict.fromkeys(("agent_id", "seq", "most", "fence", "step", "attempts_undone", "retryable", "output_id"), 1),
    **dict.fromkeys(("now_us", "now_boot_ms", "expires_at_us", "lease_until_boot_ms", "queue_until_boot_ms"), 1),
    **dict.fromkeys(("id", "model", "worker_id", "boot_id", "sha256", "source_sha256", "filename", "job_id"), "x"),
    **dict.fromkeys(("error_code", "error", "timings", "ran_with"), "x"),
}

HOT = [
    "get_job",
    "find_next",
    "list_waiting_models",
    "claim",
    "mark_served",
    "list_pins",
    "heartbeat",
    "put_progress",
    "complete",
    "fail",
    "cancel_running",
    "give_back",
    "count_device_loss",
    "list_lost",
    "list_overdue",
    "fail_overdue",
    "find_foreign_boot",
    "restart_queue_time",
    "get_room",
    "find_oldest_active",
    "count_work",
    "queue_position",
    "release_pins",
    "find_output",
    "find_key",
    "get_usage",
    "find_reference",
    "find_upload",
    "list_references",
    "renew_reference",
    "is_reference_pinned",
    "delete_reference",
]

# Walks through a whole partial index, which holds no more than what is running or queued.
WALKS = {
    "list_lost": {"jobs_lease_until"},  # the running jobs, one for each worker: leases of another boot
    "get_room": {"jobs_queued", "jobs_queued_model"},  # no more than the limit
    "count_work": {"jobs_queued", "jobs_queued_model"},  # likewise
    "find_foreign_boot": {"jobs_queued", "jobs_queued_model"},  # once at a start
    "restart_queue_time": {"jobs_queued", "jobs_queued_model"},  # once after a reboot
}


@pytest.fixture(scope="module", params=["empty", "filled", "filled and analysed"])
def connection(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    data_dir = tmp_path_factory.mktemp("data")
    ensure_store(data_dir, data_dir / "umrgen.sqlite3")
    connection = open_writer(data_dir / "umrgen.sqlite3")
    if request.param != "empty":
        fill(connection)
    if request.param == "filled and analysed":
        connection.execute("ANALYZE")
        connection.close()
        connection = open_writer(data_dir / "umrgen.sqlite3")  # statistics are read when it is opened
    yield connection
    connection.close()


def fill(connection: Connection) -> None:
    """50 agents with 10,000 jobs, of which 1000 are queued and 2 are running."""
    connection.execute("BEGIN IMMEDIATE")
    for agent in range(1, 51):
        connection.execute(
            "INSERT INTO agents (id, name, session_id, created_at_us, last_served) VALUES (?, ?, ?, 0, ?)",
            [agent, f"a{agent}", f"sid_ext_{agent}", agent // 2],
        )
        connection.execute(
            "INSERT INTO api_keys (agent_id, name, sha256, created_at_us) VALUES (?, 'first', ?, 0)",
            [agent, f"{agent:064d}"],
        )
    for seq in range(1, 10_001):
        agent, digest = seq % 50 + 1, f"{seq:064d}"
        connection.execute(
            "INSERT INTO \"references\" VALUES (?, ?, ?, ?, 'png', 64, 64, 1, ?, ?, 64, 64, 1, 'png', 0, ?)",
            [seq, agent, f"r{seq}", f"r{seq}", digest, digest, seq],
        )
        connection.execute(
            "INSERT INTO outputs VALUES (?, ?, ?, ?, 64, 64, 1, ?, 0, ?)",
            [seq, agent, f"o{seq}", f"o{seq}", digest, seq],
        )
        put_job(connection, seq, agent)
    connection.execute("COMMIT")


def put_job(connection: Connection, seq: int, agent: int) -> None:
    state = "completed" if seq <= 8998 else "running" if seq <= 9000 else "queued"
    values: dict[str, Any] = {"seq": seq, "id": f"ext_{seq}", "agent_id": agent, "state": state, "model": f"m{seq % 2}"}
    values |= {"prompt": "p", "negative": "", "width": 64, "height": 64, "steps": 4, "seed": 1, "reference_names": "[]"}
    values |= {
        "ignored": "[]",
        "request_id": "r",
        "created_at_us": seq,
        "queue_boot_id": "b",
        "queue_until_boot_ms": seq,
    }
    if state != "queued":
        values |= {"fence": 1, "attempts": 1, "worker_id": "w", "started_at_us": seq}
    if state == "running":
        values |= {"lease_boot_id": "b", "lease_until_boot_ms": seq}
    if state == "completed":
        values |= {"finished_at_us": seq, "expires_at_us": seq, "output_id": seq, "timings": "{}"}
    columns, places = ", ".join(values), ", ".join("?" * len(values))
    connection.execute(f"INSERT INTO jobs ({columns}) VALUES ({places})", [*values.values()])
    if state == "queued":
        connection.execute("INSERT INTO job_references VALUES (?, 0, ?, NULL)", [values["id"], seq])


def list_names_of_tables(sql: str) -> set[str]:
    """The tables of a statement, under the names that its plan calls them by."""
    named = re.findall(r'\b(?:FROM|JOIN|UPDATE|INTO)\s+"?(\w+)"?(?:\s+AS\s+(\w+))?', sql)
    return {alias or table for table, alias in named if table in TABLES}


def explain(connection: Connection, sql: str) -> list[str]:
    wanted = {name: VALUES[name] for name in re.findall(r"(?<!:):(\w+)", sql)}
    return [row["detail"] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", wanted)]


def find_scans(connection: Connection, name: str) -> list[str]:
    """Steps of the plan that read a whole table or index, but for what is allowed to."""
    sql: str = getattr(load_statements(), name).sql
    tables, found = list_names_of_tables(sql), []
    assert tables, name
    for step in explain(connection, sql):
        scan = re.match(r"SCAN (\w+)(?:.*INDEX (\w+))?", step)
        if scan and scan[1] in tables and scan[2] not in WALKS.get(name, ()):
            found.append(step)
    return found


@pytest.mark.parametrize("name", HOT)
def test_a_hot_statement_scans_no_table(connection: Connection, name: str) -> None:
    assert find_scans(connection, name) == []


@pytest.mark.parametrize("name", HOT)
def test_a_hot_statement_makes_no_index_of_its_own(connection: Connection, name: str) -> None:
    assert [step for step in explain(connection, getattr(load_statements(), name).sql) if "AUTOMATIC" in step] == []


@pytest.mark.parametrize("name", HOT)
def test_a_hot_statement_is_not_prepared_anew_for_each_limit(name: str) -> None:
    """SQLite does so for a limit that is a bare parameter; see sql/jobs.sql."""
    assert re.findall(r"LIMIT\s+:\w+", getattr(load_statements(), name).sql) == []


def test_a_scan_would_be_seen(connection: Connection) -> None:
    assert explain(connection, "SELECT * FROM jobs AS j WHERE j.prompt = :id") == ["SCAN j"]
    assert list_names_of_tables('SELECT * FROM "references" AS r JOIN jobs ON 1') == {"r", "jobs"}


def test_the_next_job_is_found_by_probes_of_the_queue_alone(connection: Connection) -> None:
    plan = explain(connection, load_statements().find_next.sql)
    probes = [step for step in plan if re.match(r"SEARCH (jobs|j) ", step)]
    assert len(probes) == 3
    assert all("jobs_queued" in step for step in probes), probes


def test_a_job_is_read_by_its_key_once_it_is_known_to_be_next(connection: Connection) -> None:
    plan = explain(connection, load_statements().find_next.sql)
    assert "SEARCH head USING INTEGER PRIMARY KEY (rowid=?)" in plan, plan


def test_the_oldest_job_of_each_model_is_found_by_probes_of_the_queue_alone(connection: Connection) -> None:
    plan = explain(connection, load_statements().list_waiting_models.sql)
    probes = [step for step in plan if re.match(r"SEARCH (jobs|j) ", step)]
    assert len(probes) == 3
    assert all(re.search(r"USING COVERING INDEX jobs_queued", step) for step in probes), probes
    assert "jobs_queued_model (model=?)" in probes[-1], probes


@pytest.mark.parametrize("name", ["get_room", "find_oldest_active"])
def test_jobs_that_have_ended_do_not_slow_down_their_agents_next(connection: Connection, name: str) -> None:
    plan = explain(connection, getattr(load_statements(), name).sql)
    assert any("jobs_agent_state (agent_id=? AND state=?" in step for step in plan), plan


@pytest.mark.parametrize("name", ["list_overdue", "get_room"])
def test_jobs_that_have_ended_do_not_slow_down_the_look_at_the_queue(connection: Connection, name: str) -> None:
    plan = explain(connection, getattr(load_statements(), name).sql)
    assert any("jobs_queued" in step for step in plan), plan
