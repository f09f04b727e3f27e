"""Mutant of either process (MUTANT_OF=api or infer): commits are not synced (PRAGMA synchronous=NORMAL)."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.faults.null_infer import load_null
from umrgen_api import __main__ as api
from umrgen_core import writer
from umrgen_core.sqlite import Connection, open_writer
from umrgen_infer import __main__ as infer


def _open_lazily(database: Path) -> Connection:
    connection = open_writer(database)
    connection.execute("PRAGMA synchronous=NORMAL")
    return connection


if __name__ == "__main__":
    writer.open_writer = _open_lazily
    infer.load_painter = load_null
    sys.exit(api.main() if os.environ["MUTANT_OF"] == "api" else infer.main())
