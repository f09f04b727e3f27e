"""What the suite expects to cost the same at any size is read by these indexes, with statistics or without."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.stores import open_store, opened
from umrgen_core.sqlite import Connection
from umrgen_core.statements import load_statements

VALUES: dict[str, Any] = {"agent_id": 1, "before": 1_000_000, "now_us": 5, "most": 20, "state": "completed"}
INDEXES = {
    "list_jobs": "j USING INDEX jobs_agent (agent_id=? AND seq<?)",
    "list_jobs_in_state": "j USING INDEX jobs_agent_state (agent_id=? AND state=? AND seq<?)",
    "find_expired": "jobs USING COVERING INDEX jobs_expiry (expires_at_us<?)",
    "list_expired_jobs": "j USING INDEX jobs_expiry (expires_at_us<?)",
    "list_expired_references": "r USING COVERING INDEX references_expiry (expires_at_us<?)",
    "delete_expired_replays": "replays USING INDEX replays_expiry (expires_at_us<?)",
}


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[list[str]]]:
    """Of each statement, before and after the store was analysed."""
    with open_store(tmp_path_factory.mktemp("bench"), 1000) as store:
        with opened(store.box) as connection:
            before = {name: explain(connection, name) for name in INDEXES}
            connection.execute("ANALYZE")
        with opened(store.box) as connection:  # statistics are read when it is opened
            return {name: [before[name], explain(connection, name)] for name in INDEXES}


def explain(connection: Connection, name: str) -> list[str]:
    sql = getattr(load_statements(), name).sql
    return [row["detail"] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", VALUES)]


@pytest.mark.parametrize("name", INDEXES)
def test_listing_and_retention_probe_an_index_and_sort_nothing(plans: dict[str, list[list[str]]], name: str) -> None:
    for plan in plans[name]:
        assert f"SEARCH {INDEXES[name]}" in plan
        assert not [step for step in plan if "SCAN" in step and "CONSTANT" not in step]
        assert not [step for step in plan if "TEMP B-TREE" in step or "AUTOMATIC" in step]
