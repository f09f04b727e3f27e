"""The units, as systemd itself reads them. That they run: test_under_systemd.py."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from pydantic import ValidationError

from tests.conftest import ROOT
from umrgen_api.__main__ import LINGER_S, SHUTDOWN_S
from umrgen_core.config import Settings, load_settings
from umrgen_core.errors import CANNOT_START
from umrgen_core.sections import InferSettings

UNITS = ROOT / "deploy" / "systemd"
INTERPRETER = "/opt/umrgen/current/.venv/bin/python"
SERVICES = sorted(path.name for path in UNITS.glob("*.service"))
SCORES = {
    "umrgen-api.service": 1.2,
    "umrgen-backup.service": 0.2,
    "umrgen-infer@.service": 1.4,
    "umrgen-mcp.service": 1.1,
    "umrgen-nvidia.service": 5.9,
}
"""Exposure by systemd-analyze, of 10: the worst that each may have. No unit gets worse unseen."""

STRICT = {
    **dict.fromkeys(("NoNewPrivileges", "PrivateDevices", "PrivateTmp", "PrivateUsers", "PrivateIPC"), ("yes",)),
    **dict.fromkeys(("PrivateMounts", "PrivateNetwork", "ProtectHome", "ProtectClock"), ("yes",)),
    **dict.fromkeys(("ProtectControlGroups", "ProtectHostname", "ProtectKernelLogs"), ("yes",)),
    **dict.fromkeys(("ProtectKernelModules", "ProtectKernelTunables", "LockPersonality"), ("yes",)),
    **dict.fromkeys(("MemoryDenyWriteExecute", "RemoveIPC", "RestrictNamespaces"), ("yes",)),
    **dict.fromkeys(("RestrictRealtime", "RestrictSUIDSGID"), ("yes",)),
    "CapabilityBoundingSet": ("",),
    "AmbientCapabilities": ("",),
    "ProtectSystem": ("strict",),
    "ProtectProc": ("invisible",),
    "ProcSubset": ("pid",),
    "KeyringMode": ("private",),
    "DevicePolicy": ("closed",),
    "RestrictAddressFamilies": ("none",),
    "IPAddressDeny": ("any",),
    "SystemCallArchitectures": ("native",),
    "SystemCallFilter": ("@system-service", "~@privileged @resources"),
    "UMask": ("0077",),
}
"""As far as it goes. A unit that is looser says so, and why, above the line."""

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is missing: apt-get install systemd"
)


@cache
def settings() -> Settings:
    return load_settings(ROOT / "config.toml")


def read_unit(name: str) -> dict[str, list[tuple[str, str]]]:
    """Each key's values in order, each with the comment that stands above its block of lines."""
    found: dict[str, list[tuple[str, str]]] = {}
    comment, in_comment = "", False
    for line in (UNITS / name).read_text().splitlines():
        if line.startswith("#"):
            comment = f"{comment} {line[1:].strip()}" if in_comment else line[1:].strip()
            in_comment = True
            continue
        in_comment = False
        key, equals, value = line.partition("=")
        if not equals:
            comment = ""
            continue
        found.setdefault(key, []).append((value, comment))
    return found


def seconds(name: str, key: str) -> float:
    return float(read_unit(name)[key][0][0])


@needs_systemd
def test_systemd_reads_every_unit_without_a_word(tmp_path: Path) -> None:
    said = verify(tmp_path, *(path.name for path in UNITS.iterdir()))
    assert said == (0, "")


@needs_systemd
def test_a_key_that_systemd_does_not_know_is_seen(tmp_path: Path) -> None:
    """It ends with 0 for one: silence is what counts."""
    broken = tmp_path / "units" / "umrgen-api.service"
    broken.parent.mkdir()
    broken.write_text((UNITS / "umrgen-api.service").read_text().replace("ProtectClock=", "ProtectClocks="))
    assert "ProtectClocks" in verify(tmp_path, "umrgen-api.socket", keep=broken)[1]


def verify(tmp_path: Path, *names: str, keep: Path | None = None) -> tuple[int, str]:
    """Exit status and complaints; the interpreter of the installed release is stood in for by this one."""
    folder = tmp_path / "units"
    folder.mkdir(exist_ok=True)
    for path in UNITS.iterdir():
        target = folder / path.name
        if target != keep:
            target.write_text(path.read_text().replace(INTERPRETER, sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *(str(folder / name) for name in names)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stderr


@needs_systemd
@pytest.mark.parametrize("name", SERVICES)
def test_no_unit_is_more_exposed_than_it_must_be(name: str) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--no-pager", str(UNITS / name)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    score = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert score is not None, done.stderr
    assert float(score[1]) <= SCORES[name]
    assert f"| `{name}` | {score[1]} |" in (ROOT / "docs" / "systemd.md").read_text()


@pytest.mark.parametrize("name", sorted(set(SERVICES) - {"umrgen-nvidia.service"}))
def test_every_looser_line_says_why(name: str) -> None:
    unit = read_unit(name)
    for key, strictest in STRICT.items():
        assert key in unit, f"{key}= is left to its default"
        values = tuple(value for value, _ in unit[key])
        comments = {comment for value, comment in unit[key] if value not in strictest} or {
            comment for _, comment in unit[key]
        }
        if values != strictest:
            assert all(comment.startswith("Looser") for comment in comments), key


def test_the_web_tier_stays_within_its_bar() -> None:
    assert SCORES["umrgen-api.service"] <= 1.5


def test_what_the_units_start_is_there() -> None:
    for name in SERVICES:
        for command, _ in read_unit(name)["ExecStart"]:
            if command.startswith(INTERPRETER):
                module = command.split()[2]
                assert importlib.util.find_spec(module) is not None, name


def test_the_bounds_of_the_units_fit_those_of_the_code() -> None:
    infer, api = "umrgen-infer@.service", "umrgen-api.service"
    for name in (infer, api, "umrgen-mcp.service"):
        assert seconds(name, "RestartPreventExitStatus") == CANNOT_START
        assert [value for value, _ in read_unit(name)["KillMode"]] == ["mixed"], name  # else children get SIGTERM too
    storage, jobs = settings().storage, settings().jobs
    assert seconds(infer, "TimeoutStartSec") > jobs.deadline_s  # which bounds the later loads
    assert seconds(infer, "TimeoutStopSec") > settings().infer.stop_grace_s + 3 * storage.lock_timeout_s
    assert seconds(infer, "WatchdogSec") < jobs.deadline_s  # else a hung run's own deadline always came first
    assert seconds(api, "TimeoutStopSec") > LINGER_S + SHUTDOWN_S + storage.lock_timeout_s
    assert seconds(api, "WatchdogSec") > 2 * storage.lock_timeout_s


def test_no_setting_lets_an_idle_daemon_be_silent_for_as_long_as_the_watchdog_waits() -> None:
    with pytest.raises(ValidationError, match="poll_s"):
        InferSettings(poll_s=seconds("umrgen-infer@.service", "WatchdogSec") / 2)


def test_the_sockets_are_where_the_configuration_says() -> None:
    api = settings().api
    listening = [value for value, _ in read_unit("umrgen-api.socket")["ListenStream"]]
    assert listening == [f"{api.host}:{api.port}", f"[::1]:{api.port}"]


def test_restarts_under_load_close_no_socket() -> None:
    """A service that systemd gives up takes its socket down: a handful of restarts in a minute must not do that."""
    for name in ("umrgen-api.service", "umrgen-infer@.service"):
        assert seconds(name, "StartLimitBurst") >= 20
        assert [value for value, _ in read_unit(name)["Restart"]] == ["always"]
