"""After an unclean stop: the check before the first write, a damaged database, backup and restore."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pysqlite3
import pytest

from tests.conftest import ROOT, FakeClock, make_settings
from tests.faults.harness import READY_S, Service, check, read_rows, wait_until
from tests.faults.table import count_damage, record
from tests.faults.test_clocks import serve_web
from umrgen_cli.processes import Daemon
from umrgen_core import integrity

MakeService = Callable[..., Service]
POST = {"json": {"prompt": "a star", "width": 64, "height": 64}}


def kill(daemon: Daemon) -> None:
    assert daemon.stop(signal.SIGKILL) == -signal.SIGKILL


def ready(service: Service) -> tuple[int, list[str]]:
    answer = service.http.get(f"{service.url}/readyz", timeout=20)
    return answer.status_code, answer.json()["reasons"]


def wait_ready(service: Service) -> None:
    wait_until(lambda: ready(service) == (200, []), READY_S)


def admin(service: Service, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "umrgen_cli.admin", command, "--config", str(ROOT / "config.toml"), *arguments]
    environment = {**os.environ, **service.environment}
    return subprocess.run(line, capture_output=True, text=True, env=environment, timeout=120, check=False)


def damage_table(data_dir: Path, table: str) -> None:
    """Flip bytes in the root page of a table, as a bad disk would; the WAL must not hold the page any more."""
    database = data_dir / "umrgen.sqlite3"
    connection = pysqlite3.connect(str(database))
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
    connection.close()
    with open(database, "r+b") as file:
        file.seek((root - 1) * page_bytes)
        page = file.read(16)
        file.seek((root - 1) * page_bytes)
        file.write(bytes(byte ^ 0xFF for byte in page))


async def test_nothing_is_written_until_the_check_has_passed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, clock, may_end = make_settings(tmp_path / "data"), FakeClock(), threading.Event()
    async with serve_web(settings, clock):
        pass
    (settings.storage.data_dir / "run" / "9-dead.open").touch()
    really_check = integrity.check_integrity
    monkeypatch.setattr(integrity, "check_integrity", lambda path: (may_end.wait(20), really_check(path)))
    async with serve_web(settings, clock) as tier:
        async with tier.session.get("/readyz") as answer:
            assert (answer.status, (await answer.json())["reasons"]) == (503, ["the store is checking"])
        async with tier.session.get("/healthz") as answer:
            assert answer.status == 200
        async with tier.session.post("/api/v1/generate", **POST) as answer:
            body = await answer.json()
            assert (answer.status, body["code"]) == (503, "unavailable")
            assert int(answer.headers["Retry-After"]) >= 1
        may_end.set()
        await tier.services.database.integrity.wait()
        await tier.submit()
    assert not list((settings.storage.data_dir / "run").glob("*.open"))


def kill_and_start(make_service: MakeService, rounds: int, padding_rows: int) -> None:
    """kill -9 of both in the middle of work; the next start finds it, checks, and goes on."""
    service = make_service(NULL_PAINTER_STEP_S="0.05")
    recovery_s = []
    for turn in range(rounds):
        tier, daemon = service.start_api(), service.start("tests.faults.null_infer")
        wait_until(lambda: service.post(seed=7).status_code == 202, READY_S)
        if turn == 0 and padding_rows:
            pad(service.data_dir, padding_rows)
        daemon.wait_for_event("run_started", READY_S)
        kill(tier)
        kill(daemon)
        began = time.monotonic()
        tier = service.start_api()
        assert tier.wait_for_event("unclean_stop_found", 10)["markers"] == 2
        while padding_rows and ready(service)[1] == ["the store is checking"]:
            answer = service.post()
            if answer.status_code == 202:
                break  # the check ended between the two questions
            assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        tier.wait_for_event("store_checked", 60)
        daemon = service.start_infer()
        wait_ready(service)
        service.wait_ended()
        recovery_s.append(time.monotonic() - began)
        assert (tier.stop(), daemon.stop()) == (0, 0)
    service.start_api()
    service.wait_swept()
    damage = check(service.data_dir, service.told)
    assert damage.found() == {}
    record("kill -9 of both, checked at the next start", runs=rounds, recovery_s=recovery_s, **count_damage([damage]))


def pad(data_dir: Path, rows: int) -> None:
    """Make the database large, so that the check takes a while."""
    connection = pysqlite3.connect(str(data_dir / "umrgen.sqlite3"), timeout=20)
    connection.execute(
        """WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
        INSERT INTO events (job_id, kind, data, created_at_us)
        SELECT (SELECT min(id) FROM jobs), 'state', hex(zeroblob(500)), i FROM n""",
        (rows,),
    )
    connection.commit()
    connection.close()


def test_after_a_kill_the_next_start_checks_and_goes_on(make_service: MakeService) -> None:
    kill_and_start(make_service, rounds=1, padding_rows=0)


@pytest.mark.faults
def test_after_many_kills_of_a_large_store_each_start_checks_and_goes_on(make_service: MakeService) -> None:
    kill_and_start(make_service, rounds=8, padding_rows=200_000)


def damage_and_start(service: Service, table: str) -> None:
    """The web tier stays up to say what is wrong; the daemon ends and names the way out."""
    tier = service.start_api()
    service.post()
    kill(tier)
    damage_table(service.data_dir, table)
    tier = service.start_api()
    problem = tier.wait_for_event("store_damaged", 20)["error"]
    wait_until(lambda: ready(service) == (503, ["the store is damaged"]), 10)
    assert service.http.get(f"{service.url}/healthz", timeout=10).status_code == 200
    answer = service.post()
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    daemon = service.start("tests.faults.null_infer")
    assert daemon.process.wait(READY_S) == 2
    said = daemon.log.read_text()
    assert "umrgen-infer:" in said
    for text in (str(problem), said.strip().splitlines()[-1]):
        assert "umrgen-admin restore" in text
    checked = admin(service, "check")
    assert checked.returncode == 1
    assert "umrgen-admin restore" in checked.stderr
    assert tier.stop() == 0


def test_a_damaged_database_is_said_and_never_written(make_service: MakeService) -> None:
    damage_and_start(make_service(), "outputs")


@pytest.mark.faults
@pytest.mark.parametrize("table", ["events", "job_references", "jobs_queued", "replays", "references"])
def test_damage_in_any_table_is_said_and_never_written(make_service: MakeService, table: str) -> None:
    damage_and_start(make_service(), table)


def back_up_and_restore(service: Service, tmp_path: Path, count: int) -> None:
    """A backup of a busy store, put back after damage: what had ended is there, what ran runs again."""
    backup = tmp_path / "backup"
    tier, daemon = service.start_api(), service.start_infer()
    for seed in range(count):
        service.post(seed=seed)
    wait_until(lambda: len(list_states(service, "completed")) >= count // 3, READY_S)
    done = admin(service, "backup", str(backup))
    assert (done.returncode, done.stderr) == (0, "")
    at_backup = {row["id"]: row for row in read_rows(backup, "SELECT * FROM jobs")}
    unended = [job_id for job_id, row in at_backup.items() if row["state"] in ("queued", "running")]
    assert len(at_backup) == count
    assert unended, "the backup was not of a busy store"
    assert admin(service, "backup", str(backup)).returncode == 1
    for job_id, row in at_backup.items():
        if row["state"] == "completed":
            service.status(job_id)
    refused = admin(service, "restore", str(backup))
    assert refused.returncode == 1
    assert "in use" in refused.stderr
    kill(tier)
    kill(daemon)
    damage_table(service.data_dir, "jobs")
    done = admin(service, "restore", str(backup))
    assert (done.returncode, done.stderr) == (0, "")
    assert admin(service, "check").returncode == 0
    assert service.data_dir.with_name(service.data_dir.name + ".before-restore").is_dir()
    began = time.monotonic()
    service.start_api()
    service.start_infer()
    service.wait_ended(120)
    recovered_s = time.monotonic() - began
    service.wait_swept()
    damage = check(service.data_dir, service.told)
    assert damage.found() == {}
    assert {service.status(job_id)["state"] for job_id in unended} == {"completed"}
    figures = json.dumps({"completed": count - len(unended), "again": len(unended)})
    record("backup while busy, restore", points=1, recovery_s=[recovered_s], note=figures, **count_damage([damage]))


def list_states(service: Service, state: str) -> list[dict[str, Any]]:
    return read_rows(service.data_dir, f"SELECT id FROM jobs WHERE state = '{state}'")


def test_a_backup_of_a_busy_store_is_put_back_after_damage(make_service: MakeService, tmp_path: Path) -> None:
    back_up_and_restore(make_service(NULL_PAINTER_STEP_S="0.08"), tmp_path, 9)


@pytest.mark.faults
def test_a_backup_of_a_long_busy_store_is_put_back_after_damage(make_service: MakeService, tmp_path: Path) -> None:
    back_up_and_restore(make_service(NULL_PAINTER_STEP_S="0.02"), tmp_path, 150)
