"""What a process ends with when its disk goes away: after any status but one systemd starts it again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, make_settings
from umrgen_core.errors import CANNOT_START

LOSE_DISK = """
import errno, sys
from umrgen_core.systemd import Notifier
from {package} import __main__ as process

say_ready = Notifier.ready

def lose_disk(notifier):
    if {was_ready}:
        say_ready(notifier)
    raise OSError(errno.ESTALE, "the data directory is gone")

async def serve(daemon):
    daemon._tell_state(process.WorkerState.READY)

Notifier.ready = lose_disk
if "{package}" == "umrgen_infer":
    process.Daemon.serve = serve  # without seconds for a model
sys.exit(process.main())
"""


@pytest.mark.parametrize("package", ["umrgen_api", "umrgen_infer"])
@pytest.mark.parametrize(("was_ready", "status"), [(False, CANNOT_START), (True, 1)])
def test_a_disk_that_goes_away_ends_for_good_only_what_could_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, was_ready: bool, status: int
) -> None:
    make_settings(tmp_path / "data")
    monkeypatch.setenv("UMRGEN_STORAGE__DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("UMRGEN_API__PORT", "0")
    program = LOSE_DISK.format(package=package, was_ready=was_ready)
    command = [sys.executable, "-c", program, "--config", str(ROOT / "config.toml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status, done.stderr
    assert "the data directory is gone" in done.stderr.splitlines()[-1]
