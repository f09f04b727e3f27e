"""UMRGEN installed in a machine of its own, agents at work there, and the record of what was done to it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.install.release import RELEASED
from tests.conftest import ROOT
from tests.deploy.load import Report
from tests.deploy.machine import CHECKOUT, PYTHON, VENV, Machine, MachineFailed

URL = "http://127.0.0.1:3088"
API, SOCKET, DAEMON = "umrgen-api.service", "umrgen-api.socket", "umrgen-infer@0.service"
INSTALL_S = 120
BACK_S = 60
GENEROUS = (
    *("--concurrent-jobs", "50", "--rate-per-minute", "1000000", "--reads-per-minute", "1000000"),
    *("--reference-limit", "100000"),
)
SHORT_LEASE = "UMRGEN_JOBS__LEASE_S=2\nUMRGEN_JOBS__HEARTBEAT_S=0.5\n"
"""So that a job whose daemon was killed is run again while the test watches."""


def copy_checkout(target: Path) -> Path:
    """What of this checkout is released, to be changed at will."""
    for pattern in RELEASED:
        for path in ROOT.glob(pattern):
            if path.is_dir():
                shutil.copytree(path, target / path.name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
            else:
                target.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, target / path.name)
    return target


class Transcript:
    """Lines that a person can read: what was done when, and what came of it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._begun = time.monotonic()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")

    def note(self, line: str) -> None:
        """Add a line."""
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(f"{time.monotonic() - self._begun:6.1f} s  {line}\n")


class Box:
    """The installed service. `checkout` is the folder that the machine sees as its checkout."""

    def __init__(self, machine: Machine, checkout: Path, transcript: Transcript) -> None:
        self.machine = machine
        self.checkout = checkout
        self.transcript = transcript

    def make(self, *words: str, timeout_s: float = INSTALL_S, check: bool = True) -> str:
        """Run what a make target runs; everything it said."""
        command = ("sh", "-c", f'cd {CHECKOUT} && exec {PYTHON} -B -m deploy.install "$@" 2>&1', "sh", *words)
        return self.machine.run(*command, timeout_s=timeout_s, check=check).stdout

    def install(self, *, check: bool = True) -> str:
        """`make install` with the packages of the tests' own environment, since nothing can be downloaded here."""
        return self.make("install", "--packages-from", VENV, check=check)

    def set_up(self) -> str:
        """Install with a short lease, and make an agent that may do much; its key."""
        for name in ("api", "infer-0"):
            self.machine.write(f"/etc/umrgen/{name}.env", SHORT_LEASE)
        said = self.install()
        self.transcript.note(f"installed: {next(line for line in said.splitlines() if 'is ready' in line)}")
        created = self.machine.run("umrgen-admin", "agents", "create", "load", *GENEROUS).stdout
        found = re.search(r"umr_\w+", created)
        assert found, created
        return found[0]

    def find_pid(self, unit: str) -> int:
        """The main process of a unit; 0 while there is none."""
        return int(self.machine.read(unit, "MainPID"))

    def kill(self, unit: str, number: str) -> None:
        """Send a signal to a unit's main process."""
        self.machine.run("systemctl", "kill", "--kill-whom=main", f"--signal={number}", unit)

    def wait_replaced(self, unit: str, pid: int, timeout_s: float = BACK_S) -> float:
        """Wait until another process than `pid` says that it is ready; the seconds it took."""

        def is_replaced() -> bool:
            return self.find_pid(unit) not in (0, pid) and self.machine.read(unit, "ActiveState") == "active"

        return self.machine.wait_until(is_replaced, timeout_s, f"{unit} to be replaced")

    def break_and_mend(self, unit: str, number: str) -> None:
        """Kill a unit's process, and see that systemd puts another in its place."""
        pid = self.find_pid(unit)
        self.kill(unit, number)
        seconds = self.wait_replaced(unit, pid)
        self.transcript.note(f"kill -{number} of {unit}: another was ready after {seconds:.1f} s")

    def restart(self, unit: str) -> None:
        """`systemctl restart`, which ends when the new process is ready."""
        begun = time.monotonic()
        self.machine.run("systemctl", "restart", unit, timeout_s=BACK_S)
        self.transcript.note(f"systemctl restart {unit}: ready after {time.monotonic() - begun:.1f} s")

    def hang(self, unit: str, watchdog_s: int) -> None:
        """Stop a unit's process in its tracks, and see that the watchdog ends it and another comes."""
        pid = self.find_pid(unit)
        self.kill(unit, "STOP")
        seconds = self.wait_replaced(unit, pid, watchdog_s + BACK_S)
        said = self.read_journal(unit)
        assert "Watchdog timeout" in said, said
        ended = f"the watchdog (of {watchdog_s} s here) ended it, another was ready after {seconds:.1f} s"
        self.transcript.note(f"kill -STOP of {unit}: {ended}")

    def read_journal(self, unit: str) -> str:
        """Everything that a unit said, and systemd of it."""
        return self.machine.run("journalctl", "--no-pager", "--output=cat", f"--unit={unit}").stdout

    def set_watchdog(self, unit: str, seconds: int) -> None:
        """A shorter watchdog than the shipped one; holds from the next start on."""
        self.machine.write(f"/etc/systemd/system/{unit}.d/watchdog.conf", f"[Service]\nWatchdogSec={seconds}\n")
        self.machine.run("systemctl", "daemon-reload")

    @contextmanager
    def under_load(self, key: str) -> Iterator[Load]:
        """Agents at work meanwhile; afterwards the report is there."""
        process = subprocess.Popen(
            [*self.machine.in_its_network(), sys.executable, "-m", "tests.deploy.load", URL, key],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip
        load = Load(process)
        try:
            yield load
            load.finish()
        finally:
            process.kill()
            process.wait()
        self.transcript.note(describe(load.report))


class Load:
    """The agents' process as the test sees it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.report = Report()

    def let_work(self, jobs: int = 5, timeout_s: float = BACK_S) -> None:
        """Wait until so many more jobs have ended: what is broken next is then broken at work."""
        wanted, deadline = len(self._lines) + jobs, time.monotonic() + timeout_s
        while len(self._lines) < wanted:
            assert time.monotonic() < deadline, f"no {jobs} jobs ended within {timeout_s:g} s"
            assert self._process.poll() is None, self._process.communicate()
            time.sleep(0.02)

    def finish(self, timeout_s: float = 180) -> None:
        """Let the last jobs end, and read the report."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._reader.join(timeout_s)
        if self._process.wait(5):
            raise MachineFailed(f"the agents failed: {self._process.stderr.read() if self._process.stderr else ''}")
        self.report = Report(**json.loads(self._lines[-1]))

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.append(line)


def describe(report: Report) -> str:
    """The report in one line."""
    return (
        f"agents: {report.requests} requests, refused {report.refused}, cut and sent again {report.cut},"
        f" answers {dict(report.answers)}, longest wait {report.longest_s:.2f} s;"
        f" {report.uploads} pictures uploaded, {report.promised} jobs promised,"
        f" ended {dict(report.states)}, {report.retried} of them ran more than once"
    )
