"""What the owner's commands say of a service that runs: nothing to do, and what it has done."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from tests.conftest import ROOT
from tests.e2e.conftest import Stack


def ask(stack: Stack, *arguments: str) -> str:
    """The output of one command; its status must be 0."""
    port = stack.url.rpartition(":")[2]
    command = [sys.executable, "-m", "umrgen_cli.admin", *arguments, "--config", str(ROOT / "config.toml")]
    environment = {**os.environ, **stack.environment, "UMRGEN_API__PORT": port}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_doctor_finds_no_problem_in_a_service_that_runs(stack: Stack) -> None:
    stack.wait_status(stack.generate())
    findings = json.loads(ask(stack, "doctor", "--json"))["findings"]
    assert [one for one in findings if one["level"] == "problem"] == []
    good = {one["name"] for one in findings if one["level"] == "ok"}
    assert good >= {
        "schema",
        "pages",
        "lock",
        "disk",
        "tiny-klein",
        "web tier",
        "daemon",
        "healthz",
        "readyz",
        "worker",
    }
    assert good >= {"worker", "keys", "queue", "outcomes", "webhooks", "descriptors"}


def test_top_and_stats_show_the_job_that_has_run(stack: Stack) -> None:
    job_id = stack.generate(steps=7)
    stack.wait_status(job_id)
    frame = ask(stack, "top", "--once")
    assert "web tier up" in frame
    assert "daemon up" in frame
    assert any(job_id[:12] in line and "completed" in line for line in frame.splitlines())
    told = json.loads(ask(stack, "stats", "--json"))
    assert told["models"]["tiny-klein"]["completed"] >= 1
    assert told["agents"]["development"]["completed"] >= 1
    assert told["stages"]["tiny-klein"]["denoise"]["p50_s"] > 0
