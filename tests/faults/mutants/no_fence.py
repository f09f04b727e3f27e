"""Mutant: no fence in the statements, none in the file's name."""

from __future__ import annotations

from typing import Any

import aiosql

from tests.faults.mutants.null_hand import run
from umrgen_core import database
from umrgen_core.names import output_disk_name
from umrgen_core.statements import SQL_FOLDER
from umrgen_infer import run as run_module

FENCE = "AND fence = :fence"


def load_unfenced() -> Any:
    sql = "\n".join(path.read_text() for path in sorted(SQL_FOLDER.glob("*.sql")))
    assert sql.count(FENCE) >= 5
    return aiosql.from_str(sql.replace(FENCE, "AND :fence = :fence"), "sqlite3", mandatory_parameters=True)


def _name_unfenced(job_id: str, _: int) -> str:
    return output_disk_name(job_id, 0)


if __name__ == "__main__":
    database.load_statements = load_unfenced
    run_module.output_disk_name = _name_unfenced
    run()
