"""Services to break."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.faults.harness import Service


@pytest.fixture
def make_service(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    with ExitStack() as exits:
        yield lambda **environment: Service(tmp_path / "data", exits, **environment)
