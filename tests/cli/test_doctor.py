"""The doctor before installs that are broken in earnest: what is said of each, and that nothing is changed."""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from socketserver import BaseServer, UnixStreamServer
from typing import Any

import pytest

from tests.conftest import ROOT, make_settings
from umrgen_cli.admin_doctor import run_doctor
from umrgen_cli.doctor import examine, store
from umrgen_cli.doctor.addresses import find_addresses
from umrgen_cli.doctor.backups import check_backups
from umrgen_cli.doctor.configuration import check_exposure
from umrgen_cli.doctor.findings import Finding, Level, Patient
from umrgen_cli.doctor.folder import find_file_system
from umrgen_cli.doctor.machine import check_clock
from umrgen_cli.doctor.patient import admit
from umrgen_cli.doctor.processes import check_web_tier
from umrgen_cli.doctor.program import check_packages
from umrgen_cli.doctor.units import check_units
from umrgen_core.clock import SystemClock
from umrgen_core.gpus import Gpu, Gpus
from umrgen_core.sqlite import open_writer

CONFIG = (ROOT / "config.toml").read_text(encoding="utf-8")
Findings = dict[str, Finding]


class Install:
    """A configuration and an empty store that a test breaks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "config.toml"
        self.data_dir = folder / "var"
        self.database = make_settings(self.data_dir).storage.database
        self.data_dir.chmod(0o700)
        self.write(CONFIG)

    def write(self, text: str) -> None:
        self.config.write_text(text, encoding="utf-8")

    def change(self, old: str, new: str) -> None:
        text = self.config.read_text(encoding="utf-8")
        assert old in text
        self.write(text.replace(old, new, 1))

    def execute(self, sql: str, *values: object) -> None:
        connection = open_writer(self.database)
        connection.execute(sql, values)
        connection.close()

    def admit(self) -> Patient:
        return asyncio.run(admit(self.config, SystemClock(), deep=False))

    def examine(self) -> Findings:
        """The worst finding of each name."""
        worst: Findings = {}
        for one in [one for found in examine.examine(self.admit()).values() for one in found]:
            if one.name not in worst or list(Level).index(one.level) > list(Level).index(worst[one.name].level):
                worst[one.name] = one
        return worst

    def add_agent(self) -> None:
        self.execute(
            "INSERT OR IGNORE INTO agents (id, name, session_id, created_at_us) VALUES (1, 'a', 'sid_ext_a', 0)"
        )

    def add_job(self, state: str, **values: Any) -> None:
        clock = SystemClock()
        now_us = clock.wall_us()
        self.execute(
            "INSERT OR IGNORE INTO agents (id, name, session_id, created_at_us) VALUES (1, 'a', 'sid_ext_a', 0)"
        )
        values = {
            "id": f"ext_{os.urandom(4).hex()}",
            "agent_id": 1,
            "state": state,
            "model": "tiny-klein",
            **dict.fromkeys(("prompt", "negative", "request_id"), "p"),
            **dict.fromkeys(("width", "height"), 64),
            **dict.fromkeys(("steps", "seed", "fence", "attempts"), 4),
            **dict.fromkeys(("reference_names", "ignored"), "[]"),
            "created_at_us": now_us,
            "queue_boot_id": clock.boot_id,
            "queue_until_boot_ms": clock.boot_ms() + 10**7,
            **values,
        }
        columns = ", ".join(values)
        self.execute(f"INSERT INTO jobs ({columns}) VALUES ({', '.join('?' * len(values))})", *values.values())

    def add_worker(self, state: str, silent_s: float) -> None:
        clock = SystemClock()
        seen_us, seen_ms = clock.wall_us() - int(silent_s * 1e6), clock.boot_ms() - int(silent_s * 1e3)
        values = ("4711-dead", 4711, state, '["tiny-klein"]', seen_us, seen_us, clock.boot_id, seen_ms)
        self.execute(f"INSERT INTO workers VALUES ({', '.join('?' * len(values))})", *values)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    monkeypatch.setattr(store, "LOCK_WAIT_S", 0.05)
    return Install(tmp_path)


def says(finding: Finding, level: Level, seen: str, advice: str = "") -> bool:
    assert finding.level is level, finding
    assert re.search(seen, finding.seen), finding
    assert re.search(advice, finding.advice), finding
    return True


def test_an_install_that_was_not_started_lacks_its_processes_and_keys_and_nothing_else(install: Install) -> None:
    found = install.examine()
    problems = {name for name, one in found.items() if one.level is Level.PROBLEM}
    assert problems == {"web tier", "daemon", "keys"}
    assert says(found["schema"], Level.OK, "version")
    assert says(found["pages"], Level.OK, "all good")
    assert says(found["packages"], Level.OK, r"\d+ installed")
    assert says(found["tiny-klein"], Level.OK, "tiny_klein")
    assert says(found["daemon"], Level.PROBLEM, "does not run", "systemctl start")


def test_where_there_is_no_store_none_is_made(install: Install) -> None:
    install.database.unlink()
    install.data_dir.rmdir()
    found = install.examine()
    assert says(found["database"], Level.PROBLEM, "there is none", "data_dir")
    assert says(found["jobs and keys"], Level.PROBLEM, "there is no store")
    assert sorted(path.name for path in install.folder.iterdir()) == ["config.toml"]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("port = 3088 ", "prot = 3088 ", r"\[api\] prot: unknown key; known here: host, port"),
        ("port = 3088 ", "port = 99999 ", r"\[api\] port: .*65535"),
        ("lease_s = 30 ", 'lease_s = "soon" ', r"\[jobs\] lease_s: .*number"),
        ("max_attempts = 3 ", "max_attempts = = 3 ", r"Invalid value"),
    ],
)
def test_a_typing_error_is_named_with_its_line_and_the_store_is_looked_at_all_the_same(
    install: Install, old: str, new: str, problem: str
) -> None:
    install.change('data_dir = "var"', 'data_dir = "elsewhere"')
    install.data_dir.rename(install.folder / "elsewhere")
    install.change(old, new)
    found = install.examine()
    number = next(n for n, line in enumerate(install.config.read_text().splitlines(), 1) if line.startswith(new))
    assert says(found["configuration"], Level.PROBLEM, problem, "neither process starts")
    assert f"line {number}" in found["configuration"].seen
    assert says(found["schema"], Level.OK, "version")
    assert says(found["file system"], Level.OK, "elsewhere")


def test_a_configuration_that_is_not_there_is_a_finding_too(install: Install) -> None:
    install.config.unlink()
    assert says(install.examine()["configuration"], Level.PROBLEM, "no such file")


def test_a_variable_that_names_no_setting_is_named(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UMRGEN_APY__PORT", "1")
    found = install.examine()
    assert says(found["configuration"], Level.PROBLEM, "UMRGEN_APY__PORT")
    assert says(found["schema"], Level.OK, "version")


def test_what_lets_strangers_in_is_named(install: Install) -> None:
    install.change('host = "127.0.0.1"', 'host = "0.0.0.0"')
    install.change("development_key_public = false", "development_key_public = true")
    install.change("allow_private = false", "allow_private = true")
    found = install.examine()
    assert says(found["development key"], Level.PROBLEM, "everybody knows", "development_key_public = false")
    assert says(found["public_url"], Level.WARNING, "not set", "public_url")
    assert says(found["trusted_proxies"], Level.WARNING, "empty", "proxy")
    assert says(found["webhooks.allow_private"], Level.WARNING, "any agent")


def test_a_store_of_an_older_version_is_told_how_to_be_migrated(install: Install) -> None:
    install.execute("PRAGMA user_version = 6")
    before = install.database.read_bytes()
    found = install.examine()
    assert says(found["schema"], Level.PROBLEM, "version 6", "make migrate")
    assert says(found["jobs and keys"], Level.PROBLEM, "version 6")
    assert install.database.read_bytes() == before


def test_pages_that_were_overwritten_are_found(install: Install) -> None:
    with open(install.database, "r+b") as file:
        file.seek(8192)
        file.write(b"\xa5" * 65_536)
    assert says(install.examine()["pages"], Level.PROBLEM, "damaged", "umrgen-admin restore")


def test_a_file_that_is_no_database_is_said_to_be_none(install: Install) -> None:
    install.database.write_bytes(b"not a database at all, but long enough to look like one" * 100)
    assert says(install.examine()["database"], Level.PROBLEM, "not a database", "umrgen-admin restore")


def test_weights_that_are_missing_in_whole_or_in_part_are_named(install: Install) -> None:
    install.change('models = ["tiny-klein"]', 'models = ["tiny-klein", "flux2-klein-4b", "mine"]')
    mine = install.folder / "mine"
    install.write(install.config.read_text() + '\n[models.mine]\npipeline = "X"\npath = "mine"\n')
    found = install.examine()
    assert says(found["flux2-klein-4b"], Level.PROBLEM, "is not in", "umrgen-infer fetch --profile flux2-klein-4b")
    assert says(found["mine"], Level.PROBLEM, "holds no pipeline", r"\[models.mine\] path")

    (mine / "vae").mkdir(parents=True)
    (mine / "model_index.json").write_text('{"_class_name": "X", "vae": ["diffusers", "Y"], "none": [null, null]}')
    assert says(install.examine()["mine"], Level.PROBLEM, "vae is empty or missing")
    shards = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (mine / "vae" / "model.safetensors.index.json").write_text(json.dumps(shards))
    (mine / "vae" / "model-1.safetensors").write_bytes(b"x" * 5000)
    assert says(install.examine()["mine"], Level.PROBLEM, "vae lacks model-2.safetensors")
    (mine / "vae" / "model-2.safetensors").write_bytes(b"x" * 5000)
    assert says(install.examine()["mine"], Level.OK, "10.1 kB")


def test_weights_of_the_hub_are_found_in_its_cache(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install.change('models = ["tiny-klein"]', 'models = ["tiny-klein", "flux2-klein-4b"]')
    monkeypatch.setenv("HF_HUB_CACHE", str(install.folder / "hub"))
    home = install.folder / "hub" / "models--black-forest-labs--FLUX.2-klein-4B" / "snapshots"
    revision = re.findall(r'revision = "([0-9a-f]{40})"', CONFIG)[0]
    (home / revision / "vae").mkdir(parents=True)
    (home / revision / "model_index.json").write_text('{"vae": ["diffusers", "Y"]}')
    (home / revision / "vae" / "config.json").write_text("{}")
    assert says(install.examine()["flux2-klein-4b"], Level.OK, "2 bytes")


def test_a_folder_that_others_may_read_is_to_be_closed(install: Install) -> None:
    install.data_dir.chmod(0o755)
    assert says(install.examine()["permissions"], Level.WARNING, "everybody", f"chmod o-rwx {install.data_dir}")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody else: run as root")
def test_a_file_of_another_owner_is_found(install: Install) -> None:
    os.chown(install.database, 4711, 4711)
    assert says(install.examine()["owner"], Level.PROBLEM, "belongs to 4711", "chown -R")


def test_too_little_disk_is_a_problem(install: Install) -> None:
    install.change("disk_floor_bytes = 536870912", f"disk_floor_bytes = {1 << 50}")
    assert says(install.examine()["disk"], Level.PROBLEM, "nothing new is accepted", "make room")


def test_a_worker_that_fell_silent_and_the_job_that_it_holds_are_found(install: Install) -> None:
    install.add_worker("ready", 120)
    now_ms = SystemClock().boot_ms()
    held = {"worker_id": "4711-dead", "lease_boot_id": SystemClock().boot_id, "lease_until_boot_ms": now_ms - 90_000}
    install.add_job("running", started_at_us=1, **held)
    found = install.examine()
    assert says(found["worker"], Level.PROBLEM, "4711-dead was not heard from for 2 min", "hangs")
    assert says(found["lease"], Level.PROBLEM, "1 job is held by a worker that is gone", "start either process")


def test_a_worker_that_loads_is_waited_for_and_one_that_is_silent_is_not(install: Install) -> None:
    install.add_worker("loading", 1)
    install.add_job("queued")
    assert says(install.examine()["queue"], Level.WARNING, "wait for tiny-klein", "wait: a worker is loading")
    install.execute("UPDATE workers SET seen_boot_ms = seen_boot_ms - 600000")
    assert says(install.examine()["queue"], Level.PROBLEM, "no worker is ready", "start a daemon")


def test_a_job_that_waits_long_beside_a_ready_worker_and_a_paused_queue_are_seen(install: Install) -> None:
    install.add_worker("ready", 1)
    install.add_job("queued", created_at_us=SystemClock().wall_us() - 3_600_000_000)
    assert says(install.examine()["queue"], Level.WARNING, "has waited 60 min .* though a worker is ready", "top")
    install.execute("UPDATE queue_control SET paused_at_us = ?", SystemClock().wall_us() - 120_000_000)
    assert says(install.examine()["queue"], Level.WARNING, "paused for 2 min", "queue resume")


def test_jobs_that_mostly_fail_are_a_problem(install: Install) -> None:
    ended = {"started_at_us": 1, "finished_at_us": 2, "expires_at_us": 3, "error": "x", "retryable": 0}
    for _ in range(5):
        install.add_job("failed", error_code="out_of_memory", **ended)
    assert says(install.examine()["outcomes"], Level.PROBLEM, r"5 of the last 5 .*out_of_memory", "jobs show")


def test_a_clock_that_went_back_is_seen(install: Install) -> None:
    ahead_us = SystemClock().wall_us() + 7_200_000_000
    install.add_job("cancelled", created_at_us=ahead_us, finished_at_us=ahead_us, expires_at_us=ahead_us + 1)
    assert says(install.examine()["clock"], Level.PROBLEM, "2 h behind", "set-ntp")


LIVE = """
import os, sys
from pathlib import Path
from umrgen_core.presence import Presence
Presence(Path(sys.argv[1]), f"{os.getpid()}-live")
print(flush=True)
sys.stdin.read()
"""


def test_a_clock_that_leapt_since_a_process_started_is_noticed(install: Install) -> None:
    command = [sys.executable, "-c", LIVE, str(install.data_dir)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert not any("leapt" in one.seen for one in check_clock(install.admit()))
        (marker,) = (install.data_dir / "run").glob(f"{process.pid}-*")
        then_s = marker.stat().st_mtime - 3600
        os.utime(marker, (then_s, then_s))
        findings = list(check_clock(install.admit()))
        process.kill()
    assert says(findings[0], Level.WARNING, "leapt by 60 min since a process started", "restart the web tier")


@pytest.mark.parametrize(("device", "level"), [("cpu", Level.OK), ("auto", Level.WARNING), ("cuda:1", Level.PROBLEM)])
def test_a_model_that_wants_a_gpu_is_told_that_there_is_none(
    install: Install, monkeypatch: pytest.MonkeyPatch, device: str, level: Level
) -> None:
    install.change('device = "cpu"', f'device = "{device}"')
    monkeypatch.setattr(Gpus, "read", lambda _: None)
    assert says(install.examine()["GPU"], level, "none is needed|no NVIDIA driver answers; tiny-klein")


def test_a_gpu_that_is_too_small_or_too_hot_is_named(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install.change('models = ["tiny-klein"]', 'models = ["flux2-klein-4b"]')
    gpu = Gpu(0, "GPU-0", "NVIDIA Small", 1_000_000_000, 8_000_000_000, 0.5, 90, None)
    monkeypatch.setattr(Gpus, "read", lambda _: [gpu])
    found = install.examine()
    assert says(found["GPU"], Level.WARNING, "0: NVIDIA Small, 1 GB of 8 GB in use, 90 °C", "hot")
    assert says(found["GPU memory"], Level.WARNING, "takes 16 GB, the largest GPU has 8 GB", "offload")


def test_keys_that_end_soon_and_agents_that_cannot_get_in_are_named(install: Install) -> None:
    install.execute(
        "INSERT INTO agents (id, name, session_id, created_at_us)"
        " VALUES (1, 'in', 'sid_ext_1', 0), (2, 'out', 'sid_ext_2', 0)"
    )
    soon_us = SystemClock().wall_us() + 86_400_000_000 * 3
    install.execute(
        "INSERT INTO api_keys (agent_id, name, sha256, created_at_us, expires_at_us) VALUES (1, 'k', ?, 0, ?)",
        "0" * 64,
        soon_us,
    )
    found = install.examine()
    assert says(found["agents"], Level.WARNING, "out", "keys create")
    assert says(found["keys"], Level.WARNING, "key 1 of in ends in 3 days|key 1 of in ends in 2 days", "keys rotate 1")


def test_a_lock_that_is_never_free_is_a_problem_with_its_holder(install: Install) -> None:
    fd = os.open(install.data_dir / "store.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX)
    assert says(install.examine()["lock"], Level.PROBLEM, f"held by process {os.getpid()}", "end it")
    os.close(fd)
    assert says(install.examine()["lock"], Level.OK, "free")


def test_a_lock_that_goes_from_hand_to_hand_is_no_problem(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever looks now and then at a saturated store never finds it free."""
    monkeypatch.setattr(store, "LOCK_WAIT_S", 0.5)
    writer = open_writer(install.database)
    fd = os.open(install.data_dir / "store.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX)
    done = threading.Event()

    def write() -> None:
        while not done.wait(0.001):
            writer.execute("UPDATE queue_control SET paused_at_us = coalesce(paused_at_us, 0) + 1")

    thread = threading.Thread(target=write)
    thread.start()
    (found,) = store.check_lock(install.admit())
    done.set()
    thread.join()
    writer.close()
    os.close(fd)
    assert says(found, Level.OK, "busy, and writes go through")


def test_a_process_that_was_killed_is_known_by_what_it_left(install: Install) -> None:
    (install.data_dir / "run").mkdir()
    (install.data_dir / "run" / "99-dead.open").touch()
    assert says(install.examine()["last stop"], Level.WARNING, "1 process ended", "nothing by hand")


def test_errors_in_the_logs_are_counted_by_event(install: Install) -> None:
    (install.data_dir / "log").mkdir()
    event = {"event": "store_write_failed", "level": "error", "timestamp": "2999-01-01T00:00:00Z"}
    old = {**event, "event": "long_ago", "timestamp": "2001-01-01T00:00:00Z"}
    lines = [json.dumps(one) for one in (event, event, old, {**event, "level": "info"})]
    (install.data_dir / "log" / "umrgen-api.log").write_text("\n".join(["half a li", *lines]))
    found = install.examine()
    assert says(found["logs"], Level.WARNING, r"store_write_failed \(2\)$", str(install.data_dir))


class Stranger(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(server: BaseServer) -> Iterator[None]:
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield
        server.shutdown()
        thread.join()


@pytest.fixture
def stranger() -> Iterator[int]:
    """Another program on the port of the web tier."""
    server = HTTPServer(("127.0.0.1", 0), Stranger)
    with serving(server):
        yield server.server_port


def test_another_program_on_the_port_is_not_taken_for_the_web_tier(install: Install, stranger: int) -> None:
    install.change("port = 3088 ", f"port = {stranger} ")
    assert says(install.examine()["healthz"], Level.PROBLEM, "404, not as UMRGEN answers", "ss -ltnp")


def test_a_file_system_of_the_network_is_known(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 1 0:1 / / rw - ext4 /dev/sda rw\n"
        f"23 22 0:2 / {tmp_path.resolve()} rw shared:1 - nfs4 host:/x rw\n"
        f"24 22 0:3 / {tmp_path.resolve()}-other rw - tmpfs x rw\n"
    )
    assert find_file_system(tmp_path / "var", mounts) == "nfs4"
    assert find_file_system(tmp_path.parent, mounts) == "ext4"


def test_a_package_of_another_version_is_named(install: Install, tmp_path: Path) -> None:
    pins = tmp_path / "constraints.txt"
    pins.write_text("rich==0.0.1\nnot-installed-here==1\n")
    (found,) = check_packages(install.admit(), pins)
    assert says(found, Level.WARNING, r"rich \d+.* for 0.0.1", "make setup")


@pytest.fixture
def systemctl(tmp_path: Path) -> Callable[[str], str]:
    def make(answer: str) -> str:
        path = tmp_path / "systemctl"
        path.write_text(f"#!/bin/sh\ncat <<'END'\n{answer}\nEND\n")
        path.chmod(0o700)
        return str(path)

    return make


def test_units_that_failed_or_are_not_enabled_are_named(
    install: Install, tmp_path: Path, systemctl: Callable[[str], str]
) -> None:
    answer = (
        "Id=umrgen-api.service\nLoadState=loaded\nActiveState=failed\nSubState=failed\nResult=exit-code\nNRestarts=5\n"
        "UnitFileState=enabled\nDropInPaths=/etc/systemd/system/umrgen-api.service.d/x.conf\n\n"
        "Id=umrgen-infer@0.service\nLoadState=loaded\nActiveState=active\nSubState=running\nUnitFileState=disabled\n\n"
        "Id=umrgen-backup.timer\nLoadState=not-found\nActiveState=inactive"
    )
    api, infer, backup = check_units(install.admit(), systemctl(answer), tmp_path)
    assert says(api, Level.PROBLEM, "failed.*5 times.*x.conf.*exit-code", "journalctl -u umrgen-api.service")
    assert says(infer, Level.WARNING, "active", "systemctl enable umrgen-infer@0")
    assert says(backup, Level.WARNING, "not installed", "make install")
    _, alone = check_units(install.admit(), systemctl(answer.partition("\n\n")[0]), tmp_path)
    assert says(alone, Level.PROBLEM, "no inference daemon", "umrgen-infer@0")
    absent = systemctl("Id=umrgen-api.service\nLoadState=not-found\nActiveState=inactive")
    assert list(check_units(install.admit(), absent, tmp_path)) == []
    assert list(check_units(install.admit(), systemctl(answer), tmp_path / "no systemd")) == []


def test_the_web_tier_is_looked_for_where_systemd_listens_and_judged_by_who_can_reach_it(
    install: Install, tmp_path: Path, systemctl: Callable[[str], str], stranger: int
) -> None:
    answer = (
        f"ActiveState=active\nListen=127.0.0.1:{stranger} (Stream)\nListen=[::]:3088 (Stream)\n"
        f"Listen={tmp_path}/web.sock (Stream)\n\nActiveState=active\n"
        f"ExecStart={{ path=python ; argv[]=python -m umrgen_api --config {install.config} ; ignore_errors=no }}"
    )
    addresses = find_addresses(install.config, systemctl(answer), tmp_path)
    assert [str(one) for one in addresses] == [f"127.0.0.1:{stranger}", "[::]:3088", f"{tmp_path}/web.sock"]
    assert [one.is_local for one in addresses] == [True, False, True]
    patient = replace(install.admit(), listening=addresses)
    (found,) = check_web_tier(patient)
    assert says(found, Level.PROBLEM, f"127.0.0.1:{stranger} was answered 404")
    key, address, *_ = check_exposure(patient)
    assert says(key, Level.PROBLEM, "does not start", 'development_key = ""')
    assert says(address, Level.OK, r"\[::\]:3088, .*reachable from other machines")
    with serving(UnixStreamServer(str(tmp_path / "web.sock"), Stranger)):
        assert addresses[2].ask("/healthz") == (404, None)
    assert find_addresses(tmp_path / "another.toml", systemctl(answer), tmp_path) == ()
    assert find_addresses(install.config, systemctl(answer.replace("=active", "=failed", 1)), tmp_path) == ()
    assert find_addresses(install.config, systemctl(answer), tmp_path / "no systemd") == ()


def test_the_newest_backup_must_not_be_old(install: Install, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    patient = Patient(install.config, make_settings(install.data_dir), SystemClock(), backups=folder)
    assert list(check_backups(patient)) == []
    (folder / "x.partial").mkdir(parents=True)
    assert says(next(check_backups(patient)), Level.WARNING, "none in", "umrgen-backup")
    (folder / "one").mkdir()
    assert says(next(check_backups(patient)), Level.OK, "1 in")
    os.utime(folder / "one", (0, 0))
    assert says(next(check_backups(patient)), Level.WARNING, "days old", "umrgen-backup.timer")


def test_a_check_that_breaks_is_a_finding_and_hinders_no_other(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check_teeth(_: Patient) -> Iterator[Finding]:
        raise ZeroDivisionError("oh")
        yield

    monkeypatch.setitem(examine.AREAS, "Program", (check_teeth, *examine.AREAS["Program"]))
    found = install.examine()
    assert says(found["teeth"], Level.PROBLEM, "ZeroDivisionError: oh")
    assert says(found["sqlite"], Level.OK, "WAL-reset")


def test_the_command_answers_in_words_and_in_json_and_with_its_status(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in install.folder.rglob("*")}
    command = [sys.executable, "-m", "umrgen_cli.admin", "doctor", "--config", str(install.config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert re.search(r"^  problem  daemon +does not run\n +to do: start it", done.stdout, re.MULTILINE)
    assert done.stdout.rstrip().splitlines()[-1].startswith("3 problems, ")
    assert "\x1b" not in done.stdout

    assert run_doctor(argparse.Namespace(config=install.config, deep=False, json=True)) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["healthy"], told["counts"]["problem"]) == (False, 3)
    assert {path: path.stat().st_mtime_ns for path in install.folder.rglob("*")} == before
