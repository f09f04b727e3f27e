from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_accounts import admin  # noqa: F401 - a fixture
from tests.cli.test_doctor import Install
from umrgen_cli.admin_stats import run_stats
from umrgen_core.clock import SystemClock
from umrgen_core.config import Settings, load_settings

HOUR_US = 3_600_000_000


@pytest.fixture
def settings_of_week(tmp_path: Path) -> Settings:
    """Three jobs that completed an hour ago, one that failed, one of long ago, one that waits."""
    install = Install(tmp_path)
    now_us = SystemClock().wall_us()
    ended = {"started_at_us": now_us - HOUR_US, "finished_at_us": now_us - HOUR_US, "expires_at_us": now_us + HOUR_US}
    long_ago_us = now_us - 1000 * HOUR_US
    old = {**ended, "created_at_us": long_ago_us, "finished_at_us": long_ago_us}
    complete(install, 1, {"total": 9.0}, **old)
    for number, total_s in ((2, 0.25), (3, 1.5), (4, 2.5)):
        timings = {"queued": 0.05, "denoise": total_s, "total": total_s}
        complete(install, number, timings, created_at_us=now_us - HOUR_US, **ended)
    failed = {"error_code": "timeout", "error": "x", "retryable": 1}
    install.add_job("failed", created_at_us=now_us - HOUR_US, **ended, **failed)
    install.add_job("queued", created_at_us=now_us - 120_000_000, model="flux2-klein-4b")
    return load_settings(install.config)


def complete(install: Install, number: int, timings: dict[str, float], **values: Any) -> None:
    install.execute(
        "INSERT OR IGNORE INTO agents (id, name, session_id, created_at_us) VALUES (1, 'a', 'sid_ext_a', 0)"
    )
    install.execute(
        "INSERT INTO outputs VALUES (?, 1, ?, ?, 64, 64, 5000, ?, 0, 0)",
        number,
        f"o{number}",
        f"d{number}",
        "0" * 64,
    )
    install.add_job("completed", output_id=number, timings=json.dumps(timings), **values)


def options(**changed: Any) -> argparse.Namespace:
    return argparse.Namespace(**{"days": 7.0, "json": False, **changed})


def test_the_week_is_told_in_words(settings_of_week: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    run_stats(settings_of_week, options())
    told = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in told.splitlines()]
    assert "jobs 5 75.0% of those that ran to an end succeeded" in lines
    assert "failures timeout 1" in lines
    assert any(line.startswith("completed █ a bar for each hour; most in one hour: 3") for line in lines)
    assert "now 0 running, 1 waiting, the oldest for 2 min" in lines
    assert any(line.startswith("kept 20 kB of outputs, 0 references (0 bytes), 1 agent, jobs since") for line in lines)
    assert "tiny-klein 4 80.0% 3 1 - -" in lines
    assert "flux2-klein-4b 1 20.0% - - - 1" in lines
    assert "a 5 100.0% 3 1 - 1" in lines
    assert lines[lines.index("tiny-klein 50 ms 1.50 s 1.50 s") + 1] == "50 ms 2.50 s 2.50 s"
    assert "\x1b" not in told


def test_the_week_is_told_to_scripts(settings_of_week: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    run_stats(settings_of_week, options(json=True))
    told = json.loads(capsys.readouterr().out)
    assert (told["jobs"], told["success"], told["queued_now"]) == (5, 0.75, 1)
    assert told["states"] == {"completed": 3, "failed": 1, "queued": 1}
    assert told["stages"]["tiny-klein"]["total"] == {"jobs": 3, "p50_s": 1.5, "p95_s": 2.5}
    assert list(told["completed_per_hour"].values()) == [3]
    assert told["usage"]["output_bytes"] == 20_000


def test_a_longer_period_has_more_jobs(settings_of_week: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    run_stats(settings_of_week, options(json=True, days=100.0))
    told = json.loads(capsys.readouterr().out)
    assert Counter(told["states"]) == {"completed": 4, "failed": 1, "queued": 1}


def test_a_store_without_jobs_is_told_in_few_words(admin) -> None:  # noqa: F811
    told = admin("stats")
    assert "jobs       0" in told
    assert "now        0 running, 0 waiting" in told
    assert "half" not in told
