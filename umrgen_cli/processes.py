"""The two daemons as child processes of a demo, of `make run` and of the tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

STOP_TIMEOUT_S = 40.0
POLL_S = 0.02


class ProcessFailed(Exception):
    """A daemon ended or did not get ready; the message has the reason and the log's place."""


@dataclass
class Daemon:
    """One running process and the file that its events go to."""

    module: str
    process: subprocess.Popen[bytes]
    log: Path

    def events(self) -> Iterator[dict[str, object]]:
        """Every event logged so far, oldest first."""
        for line in self.log.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("{"):
                try:
                    yield json.loads(line)
                except ValueError:  # a line that is being written
                    continue

    def wait_for_event(self, name: str, timeout_s: float) -> dict[str, object]:
        """The first event of this name. Raises ProcessFailed when it does not come."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            for event in self.events():
                if event.get("event") == name:
                    return event
            self.require_alive()
            time.sleep(POLL_S)
        raise ProcessFailed(f"{self.module} did not log '{name}' within {timeout_s:g} s; its log: {self.log}")

    def require_alive(self) -> None:
        """Raise ProcessFailed with the end of the log when the process has ended."""
        status = self.process.poll()
        if status is not None:
            tail = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-8:]
            raise ProcessFailed(f"{self.module} ended with status {status}; its log: {self.log}\n" + "\n".join(tail))

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def start_daemon(module: str, config: Path, log: Path, environment: Mapping[str, str]) -> Daemon:
    """Start `python -m module --config config`, its output appended to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", module, "--config", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
        )
    return Daemon(module, process, log)


@contextmanager
def running(*daemons: Daemon) -> Iterator[None]:
    """Stop every daemon at the end, whatever happens in between."""
    try:
        yield
    finally:
        for daemon in daemons:
            if daemon.process.poll() is None:
                daemon.process.send_signal(signal.SIGTERM)
        for daemon in daemons:
            daemon.stop()
