"""The service as its clients see it: a URL and a key."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.client.service import shared_service
from tests.conftest import DEVELOPMENT_KEY, ROOT
from tests.e2e.conftest import Stack
from umrgen_client import Client

Umrgen = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def service() -> Stack:
    return shared_service()


@pytest.fixture
def client(service: Stack) -> Iterator[Client]:
    with Client(service.url, DEVELOPMENT_KEY) as opened:
        yield opened


def environment_of(url: str, key: str = DEVELOPMENT_KEY) -> dict[str, str]:
    """What `umrgen`, the examples and the library read. Without colours, as wide as it takes."""
    found = {"UMRGEN_URL": url, "UMRGEN_API_KEY": key, "COLUMNS": "200", "NO_COLOR": "1", "PYTHONPATH": str(ROOT)}
    return {**os.environ, **found}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "umrgen_cli.umrgen", *arguments]


@pytest.fixture
def umrgen(service: Stack, tmp_path: Path) -> Umrgen:
    """`umrgen("status", job)`: run the command in tmp_path; its exit status, stdout and stderr."""

    def run(*arguments: str, url: str = "", **options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(*arguments),
            cwd=tmp_path,
            env=environment_of(url or service.url),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            **options,  # type: ignore[call-overload]
        )

    return run
