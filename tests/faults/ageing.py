"""Time passed for the retention: rows are aged from outside, since waiting for days is no test."""

from __future__ import annotations

import pysqlite3

from tests.faults.harness import Service

TABLES = ("jobs", "outputs", '"references"', "replays")


def age_rows(service: Service, *tables: str) -> None:
    """Put the end of every kept row of these tables into the past."""
    connection = pysqlite3.connect(str(service.data_dir / "umrgen.sqlite3"), timeout=10)
    with connection:
        for table in tables:
            ended = "AND finished_at_us IS NOT NULL" if table == "jobs" else ""
            connection.execute(f"UPDATE {table} SET expires_at_us = created_at_us + 1 WHERE 1 {ended}")
    connection.close()
