"""Schemathesis against a service of its own: `python -m tests.e2e.fuzzing EXAMPLES` runs as long as you like.

The web tier is a real process; a daemon that needs no model ends the jobs, so that waits and streams end too.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.conftest import DEVELOPMENT_KEY, ROOT, picture_bytes
from tests.e2e.conftest import Stack

NO_LIMITS = {
    "UMRGEN_AUTH__FAILURES_PER_MINUTE": "0",
    "UMRGEN_LIMITS__CONCURRENT_JOBS": "100000",
    "UMRGEN_LIMITS__QUEUED_JOBS": "100000",
    "UMRGEN_LIMITS__RATE_PER_MINUTE": "1000000",
    "UMRGEN_LIMITS__REFERENCES": "100000",
    "NULL_PAINTER_STEP_S": "0",
}
# What is named by a word list is there; the rest is made up, and mostly not there.
CONFIG = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", 304, 400, 401, 403, 404, 409, 416]  # only_what_no_schema_says_is_refused looks closer

[generation]
database = "none"

[dictionaries]
session = {{ values = ["sid_ext_gen"] }}
reference = {{ values = ["{reference}"] }}
output = {{ values = ["{output}"] }}
job = {{ values = ["{job}"] }}

[[operations]]
include-path = "/references/{{session_id}}/{{filename}}"
[operations.parameters]
"path.session_id" = {{ dictionary = "session", probability = 0.8 }}
"query.session_id" = {{ dictionary = "session", probability = 0.8 }}
"path.filename" = {{ dictionary = "reference", probability = 0.8 }}

[[operations]]
include-path = "/outputs/{{session_id}}/{{filename}}"
[operations.parameters]
"path.session_id" = {{ dictionary = "session", probability = 0.8 }}
"query.session_id" = {{ dictionary = "session", probability = 0.8 }}
"path.filename" = {{ dictionary = "output", probability = 0.8 }}

[[operations]]
include-path = ["/api/v1/status/{{job_id}}", "/api/v1/events/{{job_id}}"]
[operations.parameters]
"path.job_id" = {{ dictionary = "job", probability = 0.6 }}
"""


def fuzz(folder: Path, exits: ExitStack, *options: str, timeout_s: float) -> subprocess.CompletedProcess[str]:
    """Start a service below `folder` and run schemathesis against it. One worker: Python 3.11 cannot take more."""
    stack = Stack(folder, exits, **NO_LIMITS)
    stack._start("tests.faults.null_infer")
    stack.start_api()
    stack.wait_ready()
    config = folder / "schemathesis.toml"
    config.write_text(_configure(stack))
    return subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", config, "run"),
            *(f"{stack.url}/docs/openapi.json", "--header", f"Authorization: Bearer {DEVELOPMENT_KEY}"),
            *("--no-color", "--workers", "1", "--request-timeout", "70", *options),
        ],
        cwd=folder,  # what it remembers of earlier runs belongs to this one
        env={**os.environ, "PYTHONPATH": str(ROOT), "SCHEMATHESIS_HOOKS": "tests.e2e.schemathesis_hooks"},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def _configure(stack: Stack) -> str:
    reference = stack.upload(picture_bytes())["filename"]
    job = stack.wait_status(stack.generate(width=64, height=64))
    output = job["image_url"].partition("?")[0].rpartition("/")[2]
    return CONFIG.format(reference=reference, output=output, job=job["job_id"])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, ExitStack() as exits:
        done = fuzz(Path(folder), exits, "--max-examples", sys.argv[1], timeout_s=3600)
        print(done.stdout, done.stderr)
        sys.exit(done.returncode)
