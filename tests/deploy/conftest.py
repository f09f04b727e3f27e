"""Machines of their own, with UMRGEN installed in them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.deploy.box import Box, Transcript, copy_checkout
from tests.deploy.machine import Machine, find_obstacle


@pytest.fixture
def box(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Box]:
    """A booted machine that sees a copy of this checkout; nothing is installed yet."""
    if obstacle := find_obstacle():
        pytest.skip(obstacle)
    checkout = copy_checkout(tmp_path / "checkout")
    name = f"systemd-{request.node.originalname.removeprefix('test_')}.txt"
    with Machine(checkout, tmp_path / "console") as machine:
        yield Box(machine, checkout, Transcript(ROOT / "build" / name))
