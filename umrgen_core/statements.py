"""The named statements of sql/*.sql, loaded once for each process by aiosql."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiosql

SQL_FOLDER = Path(__file__).parent / "sql"


def load_statements() -> Any:
    """Every statement as a function over the write connection; `.sql` is its text for the reader.

    Any: the functions are made from the files at run time.
    """
    return aiosql.from_path(SQL_FOLDER, "sqlite3", mandatory_parameters=True)
