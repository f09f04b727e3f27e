"""What only a release's own packages can say: run by its Python, as the service's user; one line of JSON.

`python -m deploy.install.inside --config F [--since COPY]`
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import closing
from pathlib import Path

from umrgen_core.config import load_settings
from umrgen_core.errors import UmrgenError
from umrgen_core.presence import list_living
from umrgen_core.schema import SCHEMA_VERSION, find_version
from umrgen_core.sqlite import Connection, SqliteError, open_reader, open_untouched

LAST_JOB = "SELECT coalesce(max(seq), 0) FROM jobs"
JOBS_SINCE = "SELECT count(*) FROM jobs WHERE seq > ?"
KEYS = "SELECT sha256 FROM api_keys"
UPLOADS = 'SELECT disk_name FROM "references"'
"""Names that are never given twice: what has expired meanwhile does not hide what has come."""


def describe(config: Path, since: Path | None) -> dict[str, int | str]:
    """The schemas of release and store (0 where there is none), keys, and what came since an older copy of it."""
    storage = load_settings(config).storage
    database = storage.database
    version = find_version(database)
    found: dict[str, int | str] = {"release_schema": SCHEMA_VERSION, "store_schema": version, "database": str(database)}
    found["in_use"] = len(list_living(storage.data_dir))
    if version:
        with closing(open_reader(database)) as connection:
            found["keys"] = len(_read_names(connection, KEYS))
            if since is not None:
                found |= _count_since(connection, since)
    return found


def _count_since(now: Connection, since: Path) -> dict[str, int]:
    with closing(open_untouched(since)) as before:
        last = before.execute(LAST_JOB).fetchone()[0]
        return {
            "jobs_since": now.execute(JOBS_SINCE, (last,)).fetchone()[0],
            "keys_since": len(_read_names(now, KEYS) - _read_names(before, KEYS)),
            "uploads_since": len(_read_names(now, UPLOADS) - _read_names(before, UPLOADS)),
        }


def _read_names(connection: Connection, question: str) -> set[str]:
    return {row[0] for row in connection.execute(question)}


def main() -> int:
    """Entry; problems go to stderr."""
    parser = argparse.ArgumentParser(prog="inside", description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--since", type=Path)
    options = parser.parse_args()
    try:
        print(json.dumps(describe(options.config, options.since)))
    except (UmrgenError, SqliteError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
