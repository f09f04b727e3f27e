"""The audit's verdict on what pip-audit reports."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

CLEAN = {"name": "a", "version": "1", "vulns": []}
SKIPPED = {"name": "b", "skip_reason": "not found"}
MENDED = {"name": "c", "version": "1", "vulns": [{"id": "X-1", "fix_versions": ["2"]}]}
OPEN = {"name": "d", "version": "1", "vulns": [{"id": "X-2", "fix_versions": []}]}


def audit(tmp_path: Path, answer: str) -> tuple[int, str]:
    """Run the script with a pip-audit in its way that gives `answer`."""
    (tmp_path / "pip_audit.py").write_text(f"import sys; sys.stdout.write({answer!r})")
    done = subprocess.run(
        [sys.executable, ROOT / ".ci" / "audit.py"],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("packages", "status", "said"),
    [
        ([CLEAN], 0, "1 packages audited, 0 vulnerabilities"),
        ([CLEAN, SKIPPED], 0, "1 could not be asked about"),
        ([CLEAN, MENDED], 1, "X-1; fixed in 2"),
        ([OPEN], 0, "X-2; fixed in none: advisory"),
    ],
)
def test_only_what_a_newer_version_mends_fails(tmp_path: Path, packages: list, status: int, said: str) -> None:
    returned, printed = audit(tmp_path, json.dumps({"dependencies": packages}))
    assert returned == status
    assert said in printed


def test_a_list_that_cannot_be_reached_is_said_and_fails_nothing(tmp_path: Path) -> None:
    assert audit(tmp_path, "") == (
        0,
        "audit: the lists of vulnerabilities could not be asked (); nothing was audited\n",
    )
