"""What only a release's own packages can say: run by its Python, as the service's user; one line of JSON.

`python -m deploy.install.inside --config F [--since DATABASE]`
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from umrgen_core.config import load_settings
from umrgen_core.errors import UmrgenError
from umrgen_core.presence import list_living
from umrgen_core.schema import SCHEMA_VERSION, find_version
from umrgen_core.sqlite import open_reader

JOBS = "SELECT count(*), coalesce(max(seq), 0) FROM jobs"
JOBS_SINCE = "SELECT count(*) FROM jobs WHERE seq > ?"
KEYS = "SELECT count(*) FROM api_keys"


def describe(config: Path, since: Path | None) -> dict[str, int]:
    """The schemas of release and store (0 where there is none), keys, and what came since an older copy of it."""
    storage = load_settings(config).storage
    database = storage.database
    found = {"release_schema": SCHEMA_VERSION, "store_schema": find_version(database), "keys": 0}
    found["in_use"] = len(list_living(storage.data_dir))
    if found["store_schema"]:
        found["keys"] = _ask(database, KEYS)[0]
    if since is not None:
        found["jobs_since"] = _ask(database, JOBS_SINCE, _ask(since, JOBS)[1])[0]
        found["keys_since"] = found["keys"] - _ask(since, KEYS)[0]
    return found


def _ask(database: Path, question: str, *values: int) -> tuple[int, ...]:
    connection = open_reader(database)
    try:
        return tuple(connection.execute(question, values).fetchone())
    finally:
        connection.close()


def main() -> int:
    """Entry; problems go to stderr."""
    parser = argparse.ArgumentParser(prog="inside", description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--since", type=Path)
    options = parser.parse_args()
    try:
        print(json.dumps(describe(options.config, options.since)))
    except UmrgenError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
