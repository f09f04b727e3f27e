from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests

from tests.conftest import ROOT

READY_S = 120.0


@pytest.fixture
def run(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    environment = {
        **os.environ,
        "UMRGEN_STORAGE__DATA_DIR": str(tmp_path / "data"),
        "UMRGEN_STORAGE__BALLAST_BYTES": "0",
        "UMRGEN_API__PORT": "0",
    }
    log = tmp_path / "run.log"
    with open(log, "wb") as output:
        command = [sys.executable, "-m", "umrgen_cli.run", "--config", str(ROOT / "config.toml")]
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    yield process, log
    process.terminate()
    process.wait(60)


def wait_for(pattern: str, log: Path, times: int = 1) -> str:
    deadline = time.monotonic() + READY_S
    while len(found := re.findall(pattern, log.read_text())) < times:
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
    return found[-1]


def daemons_of(process: subprocess.Popen[bytes]) -> dict[str, psutil.Process]:
    return {child.cmdline()[2]: child for child in psutil.Process(process.pid).children()}


def test_both_run_until_ctrl_c_and_one_that_dies_is_started_again(run: tuple[subprocess.Popen[bytes], Path]) -> None:
    process, log = run
    port = wait_for(r'"port": (\d+)', log)
    wait_for("model_ready", log)
    assert requests.get(f"http://127.0.0.1:{port}/readyz", timeout=10).status_code == 200
    infer = daemons_of(process)["umrgen_infer"]
    while time.time() - infer.create_time() < 6:
        time.sleep(0.1)
    infer.kill()
    wait_for("model_ready", log, times=2)
    daemons = daemons_of(process)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    assert not any(daemon.is_running() for daemon in daemons.values())


def test_one_that_cannot_start_ends_both_with_its_reason(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text((ROOT / "config.toml").read_text().replace("port = 3088", "port = 99999999"))
    command = [sys.executable, "-m", "umrgen_cli.run", "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "[api] port" in done.stderr
