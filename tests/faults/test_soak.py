"""The soak itself works: some seconds of it break nothing."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from tests.faults.soak import soak


def test_a_short_soak_with_kills_breaks_nothing(tmp_path: Path) -> None:
    plot = tmp_path / "memory.png"
    summary = soak(tmp_path / "data", 12, 1, plot, pause_s=0.05)
    assert summary["broken"] == {}
    assert sum(summary["kills"].values()) >= 2
    assert summary["promised"] > 10
    assert summary["did"]["fetch"] > 0
    assert set(summary["memory_mib"]) == {"api kept", "infer kept"}
    with Image.open(plot) as image:
        assert image.size == (1200, 560)
