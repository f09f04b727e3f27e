"""A service to break, and the checks made on it from outside.

What agents were told is kept here (`Acknowledged`); the store and the files are then read with plain
SQLite and plain file access, by nothing of the service's own.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pysqlite3
import requests

from tests.conftest import DEVELOPMENT_KEY, ROOT
from umrgen_cli.processes import Daemon, running, start_daemon

READY_S = 60.0
SETTLE_S = 60.0
POLL_S = 0.02
ENDED = ("completed", "failed", "cancelled")

FAST = {
    "UMRGEN_API__PORT": "0",
    "UMRGEN_STORAGE__BALLAST_BYTES": "0",
    "UMRGEN_STORAGE__DISK_FLOOR_BYTES": "0",
    "UMRGEN_STORAGE__ORPHAN_MARGIN_S": "0.5",
    "UMRGEN_STORAGE__LOCK_TIMEOUT_S": "2",
    "UMRGEN_API__BODY_TIMEOUT_S": "1",
    "UMRGEN_UPLOADS__TIMEOUT_S": "1.5",  # an orphan is older than the longest upload can take
    "UMRGEN_UPLOADS__WAITING": "4",
    "UMRGEN_JOBS__LEASE_S": "1",
    "UMRGEN_JOBS__HEARTBEAT_S": "0.3",
    "UMRGEN_JOBS__DEADLINE_S": "3",
    "UMRGEN_JOBS__MAX_ATTEMPTS": "5",
    "UMRGEN_LIMITS__CONCURRENT_JOBS": "1000",
    "UMRGEN_LIMITS__RATE_PER_MINUTE": "1000000",
    "UMRGEN_LIMITS__READS_PER_MINUTE": "1000000",
    "UMRGEN_INFER__POLL_S": "0.2",
}


@dataclass
class Acknowledged:
    """What agents have been promised: jobs by 202, uploads by 200, cancels by 200."""

    jobs: list[str] = field(default_factory=list)
    uploads: dict[str, str] = field(default_factory=dict)
    completed: dict[str, str] = field(default_factory=dict)


@dataclass
class Damage:
    """What the checks found. Everything must be empty."""

    jobs_lost: list[str] = field(default_factory=list)
    jobs_unended: list[str] = field(default_factory=list)
    pictures_bad: list[str] = field(default_factory=list)
    published_twice: list[str] = field(default_factory=list)
    rows_dangling: list[str] = field(default_factory=list)
    files_dangling: list[str] = field(default_factory=list)
    slots_leaked: list[str] = field(default_factory=list)
    database: list[str] = field(default_factory=list)

    def found(self) -> dict[str, list[str]]:
        return {name: items for name, items in vars(self).items() if items}


class Service:
    """Both processes over one data directory; each can be started, killed and frozen alone."""

    def __init__(self, data_dir: Path, exits: ExitStack, **environment: str) -> None:
        self.data_dir = data_dir
        self.told = Acknowledged()
        self.environment = {**FAST, "UMRGEN_STORAGE__DATA_DIR": str(data_dir), **environment}
        self.http = requests.Session()
        self.http.headers["Authorization"] = f"Bearer {DEVELOPMENT_KEY}"
        self.url = ""
        self._exits = exits
        self._logs = data_dir.with_name(data_dir.name + "-logs")
        self._started = 0

    def start(self, module: str, **environment: str) -> Daemon:
        self._started += 1
        log = self._logs / f"{self._started:03d}-{module.rsplit('.', 1)[-1]}.log"
        daemon = start_daemon(module, ROOT / "config.toml", log, {**self.environment, **environment})
        self._exits.enter_context(running(daemon))
        return daemon

    def start_api(self, **environment: str) -> Daemon:
        daemon = self.start("umrgen_api", **environment)
        self.url = f"http://127.0.0.1:{daemon.wait_for_event('listening', READY_S)['port']}"
        return daemon

    def start_infer(self, **environment: str) -> Daemon:
        daemon = self.start("tests.faults.null_infer", **environment)
        daemon.wait_for_event("model_ready", READY_S)
        return daemon

    def post(self, **fields: Any) -> requests.Response | None:
        """A generate; None when the connection broke. A 202 is remembered as a promise."""
        headers = {"Idempotency-Key": key} if (key := fields.pop("idempotency_key", None)) else {}
        body = {"prompt": "a star", "width": 64, "height": 64, **fields}
        try:
            answer = self.http.post(f"{self.url}/api/v1/generate", json=body, headers=headers, timeout=20)
        except requests.RequestException:
            return None
        if answer.status_code == 202 and answer.json()["job_id"] not in self.told.jobs:
            self.told.jobs.append(answer.json()["job_id"])
        return answer

    def upload(self, content: bytes) -> requests.Response | None:
        try:
            answer = self.http.post(f"{self.url}/api/v1/upload-reference", files={"file": content}, timeout=20)
        except requests.RequestException:
            return None
        if answer.status_code == 200:
            self.told.uploads[answer.json()["filename"]] = answer.json()["sha256"]
        return answer

    def status(self, job_id: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.http.get(f"{self.url}/api/v1/status/{job_id}", timeout=20).json()
        if answer.get("state") == "completed":
            self.told.completed[job_id] = answer["sha256"]
        return answer

    def wait_ended(self, timeout_s: float = SETTLE_S) -> float:
        """Wait until every promised job has ended; the seconds it took."""
        began = time.monotonic()
        wait_until(lambda: all(self.status(job_id).get("state") in ENDED for job_id in self.told.jobs), timeout_s)
        return time.monotonic() - began

    def wait_swept(self, timeout_s: float = SETTLE_S) -> None:
        """Wait until the sweep has found every orphan, as far as it finds any."""
        with suppress(AssertionError):
            wait_until(lambda: not list_orphans(self.data_dir), timeout_s)


def wait_until(holds: Callable[[], bool], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s"
        time.sleep(POLL_S)


def read_rows(data_dir: Path, sql: str) -> list[dict[str, Any]]:
    connection = pysqlite3.connect(f"file:{data_dir / 'umrgen.sqlite3'}?mode=rw", uri=True)
    connection.row_factory = pysqlite3.Row
    try:
        return [dict(row) for row in connection.execute(sql)]
    finally:
        connection.close()


def list_orphans(data_dir: Path) -> list[str]:
    """Files that no row names."""
    named = {f"outputs/{row['disk_name']}" for row in read_rows(data_dir, "SELECT disk_name FROM outputs")}
    named |= {f"references/{row['disk_name']}" for row in read_rows(data_dir, 'SELECT disk_name FROM "references"')}
    root = data_dir / "files"
    return sorted(
        str(p.relative_to(root)) for p in root.rglob("*") if p.is_file() and str(p.relative_to(root)) not in named
    )


def check(data_dir: Path, told: Acknowledged, *, settled: bool = True) -> Damage:
    """Compare the store and the files with what agents were told. `settled`: everything should have ended."""
    damage = Damage()
    checked = read_rows(data_dir, "PRAGMA integrity_check")
    if [row["integrity_check"] for row in checked] != ["ok"]:
        damage.database.append(str(checked))
    jobs = {row["id"]: row for row in read_rows(data_dir, "SELECT * FROM jobs")}
    outputs = {row["id"]: row for row in read_rows(data_dir, "SELECT * FROM outputs")}
    references = {row["filename"]: row for row in read_rows(data_dir, 'SELECT * FROM "references"')}
    damage.jobs_lost += [job_id for job_id in told.jobs if job_id not in jobs]
    damage.jobs_lost += [
        name for name, sha256 in told.uploads.items() if references.get(name, {}).get("sha256") != sha256
    ]
    for job_id, sha256 in told.completed.items():
        row = jobs.get(job_id, {})
        if row.get("state") != "completed" or outputs[row["output_id"]]["sha256"] != sha256:
            damage.jobs_lost.append(f"{job_id} was completed with another picture")
    named = [row["output_id"] for row in jobs.values() if row["output_id"] is not None]
    damage.published_twice += [str(i) for i in set(named) if named.count(i) > 1]
    damage.rows_dangling += [f"output {i} of no job" for i in set(outputs) - set(named)]
    _check_files(data_dir / "files", outputs, references, damage)
    if settled:
        damage.jobs_unended += [f"{j} {row['state']}" for j, row in jobs.items() if row["state"] not in ENDED]
        damage.slots_leaked += [str(row) for row in read_rows(data_dir, "SELECT * FROM job_references")]
        damage.files_dangling += list_orphans(data_dir)
    _check_usage(data_dir, damage)
    return damage


def _check_files(root: Path, outputs: dict[int, Any], references: dict[str, Any], damage: Damage) -> None:
    rows = [("outputs", row) for row in outputs.values()] + [("references", row) for row in references.values()]
    for shelf, row in rows:
        path = root / shelf / row["disk_name"]
        content = path.read_bytes() if path.exists() else b""
        if hashlib.sha256(content).hexdigest() != row["sha256"]:
            damage.pictures_bad.append(f"{shelf}/{row['disk_name']} {len(content)} bytes")
    seen: dict[str, int] = {}
    for row in outputs.values():
        job = row["disk_name"].split(".")[0]
        seen[job] = seen.get(job, 0) + 1
    damage.published_twice += [job for job, count in seen.items() if count > 1]


def _check_usage(data_dir: Path, damage: Damage) -> None:
    wrong = read_rows(
        data_dir,
        """SELECT name FROM agents AS a WHERE
            used_references <> (SELECT count(*) FROM "references" WHERE agent_id = a.id)
            OR used_reference_bytes <> (SELECT coalesce(sum(bytes), 0) FROM "references" WHERE agent_id = a.id)
            OR used_output_bytes <> (SELECT coalesce(sum(bytes), 0) FROM outputs WHERE agent_id = a.id)""",
    )
    damage.slots_leaked += [f"usage of {row['name']}" for row in wrong]


class Killer:
    """strace on a running process: SIGKILL, or an error, at the N-th of the given system calls."""

    def __init__(self, pid: int, calls: str, inject: str, output: Path) -> None:
        self._process = subprocess.Popen(
            [
                "strace",
                "-f",
                "-q",
                "-e",
                f"trace={calls}",
                "-e",
                f"inject={calls}:{inject}",
                "-o",
                str(output),
                "-p",
                str(pid),
            ],
            stderr=subprocess.PIPE,
        )
        wait_until(lambda: _is_traced(pid) or self._process.poll() is not None, 10)

    def detach(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        self._process.communicate(timeout=20)


def _is_traced(pid: int) -> bool:
    with suppress(OSError):
        return all(
            "TracerPid:\t0\n" not in Path(f"/proc/{pid}/task/{task}/status").read_text()
            for task in os.listdir(f"/proc/{pid}/task")
        )
    return False
