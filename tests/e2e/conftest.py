"""Both daemons as real processes over a store of their own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.conftest import DEVELOPMENT_KEY, ROOT
from umrgen_cli.processes import Daemon, running, start_daemon

READY_S = 120.0
JOB_S = 120.0
POLL_S = 0.02


class Stack:
    """Web tier and inference daemon on a free port; either can be started and killed alone."""

    def __init__(self, data_dir: Path, stack: ExitStack, **environment: str) -> None:
        self.data_dir = data_dir
        self.environment = {
            "UMRGEN_STORAGE__DATA_DIR": str(data_dir),
            "UMRGEN_STORAGE__BALLAST_BYTES": "0",
            "UMRGEN_API__PORT": "0",
            "UMRGEN_LIMITS__READS_PER_MINUTE": "1000000",
            **environment,
        }
        self.url = ""
        self._stack = stack
        self._started = 0
        self.http = requests.Session()
        self.http.headers["Authorization"] = f"Bearer {DEVELOPMENT_KEY}"

    def _start(self, module: str) -> Daemon:
        self._started += 1
        log = self.data_dir / f"{module}-{self._started}.out"
        daemon = start_daemon(module, ROOT / "config.toml", log, self.environment)
        self._stack.enter_context(running(daemon))
        return daemon

    def start_api(self) -> Daemon:
        daemon = self._start("umrgen_api")
        self.url = f"http://127.0.0.1:{daemon.wait_for_event('listening', READY_S)['port']}"
        return daemon

    def start_infer(self) -> Daemon:
        return self._start("umrgen_infer")

    def wait_ready(self) -> None:
        wait_until(lambda: self.http.get(f"{self.url}/readyz", timeout=10).status_code == 200, READY_S)

    def upload(self, content: bytes) -> dict[str, Any]:
        return self.http.post(f"{self.url}/api/v1/upload-reference", files={"file": content}, timeout=30).json()

    def generate(self, **fields: Any) -> str:
        answer = self.http.post(f"{self.url}/api/v1/generate", json={"prompt": "a red circle", **fields}, timeout=30)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["job_id"])

    def status(self, job_id: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.http.get(f"{self.url}/api/v1/status/{job_id}", timeout=30).json()
        return answer

    def wait_status(self, job_id: str, test: Callable[[dict[str, Any]], bool] | None = None) -> dict[str, Any]:
        """Poll until `test` holds; without one until the job has ended."""
        seen: dict[str, Any] = {}

        def holds() -> bool:
            seen.update(new := self.status(job_id))
            ended = new["state"] in ("completed", "failed", "cancelled")
            assert test is None or not ended or test(new), new
            return test(new) if test else ended

        wait_until(holds, JOB_S)
        return self.status(job_id) if test is None else seen


def wait_until(holds: Callable[[], bool], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s"
        time.sleep(POLL_S)


@pytest.fixture
def make_stack(tmp_path: Path) -> Iterator[Callable[..., Stack]]:
    with ExitStack() as stack:
        yield lambda **environment: Stack(tmp_path / "data", stack, **environment)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One running service for the tests that break nothing."""
    with ExitStack() as exits:
        shared = Stack(tmp_path_factory.mktemp("stack"), exits)
        shared.start_infer()
        shared.start_api()
        shared.wait_ready()
        yield shared
