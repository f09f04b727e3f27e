"""An older store with rows in it becomes today's, with its rows."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic import command

from umrgen_core.migrate import alembic_config, migrate
from umrgen_core.schema import SCHEMA_VERSION, check_version, find_version
from umrgen_core.sqlite import open_writer

AGENT = "INSERT INTO agents (id, name, session_id, created_at_us) VALUES (1, 'alice', 'sid_ext_alice', 5)"
JOB = """
    INSERT INTO jobs (id, agent_id, state, model, prompt, negative, width, height, steps, seed, reference_names,
        ignored, request_id, created_at_us, queue_boot_id, queue_until_boot_ms)
    VALUES ('ext_1', 1, 'queued', 'm', 'a star', '', 64, 64, 4, 1, '[]', '[]', 'r', 5, 'b', 9)
"""


def make_old_store(path: Path, revision: str) -> None:
    """A store of an earlier version, with an agent and a queued job."""
    path.touch(mode=0o600)
    command.upgrade(alembic_config(path), revision)
    connection = open_writer(path)
    connection.execute(f"PRAGMA user_version={int(revision)}")
    for statement in (AGENT, JOB):
        connection.execute(statement)
    connection.close()


@pytest.mark.parametrize("revision", [f"{number:04}" for number in range(1, SCHEMA_VERSION)])
def test_a_store_of_every_earlier_version_is_upgraded_with_its_rows(tmp_path: Path, revision: str) -> None:
    path = tmp_path / "umrgen.sqlite3"
    make_old_store(path, revision)
    assert migrate(path) == SCHEMA_VERSION == find_version(path)
    check_version(find_version(path), path)
    connection = open_writer(path)
    agent, job = (connection.execute(f"SELECT * FROM {table}").fetchone() for table in ("agents", "jobs"))
    assert (agent["name"], agent["safety_off"]) == ("alice", "")
    assert (job["prompt"], job["state"], job["loras"], job["ran_with"]) == ("a star", "queued", "[]", None)
    assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    connection.close()
