"""Every file in examples/ is run as it stands."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.client.conftest import environment_of
from tests.conftest import ROOT, picture_bytes
from tests.e2e.conftest import Stack

EXAMPLES = ROOT / "examples"
COMMANDS = {
    "curl.sh": ["bash", str(EXAMPLES / "curl.sh")],
    "python_client.py": [sys.executable, str(EXAMPLES / "python_client.py")],
    "javascript.mjs": ["node", str(EXAMPLES / "javascript.mjs")],
}


def run_example(service: Stack, folder: Path, command: list[str]) -> str:
    program = command[0]
    assert shutil.which(program), f"{program} is needed: apt install curl nodejs"
    done = subprocess.run(
        command, cwd=folder, env=environment_of(service.url), capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_a_photo_and_a_prompt_become_a_picture(service: Stack, tmp_path: Path, name: str) -> None:
    (tmp_path / "photo.jpg").write_bytes(picture_bytes(120, 100, "JPEG"))
    said = run_example(service, tmp_path, [*COMMANDS[name], "photo.jpg", "picture.png"])
    assert "accepted: ext_" in said
    assert "saved: picture.png" in said
    assert Image.open(tmp_path / "picture.png").size == (256, 256)


def test_an_agent_mends_its_request_and_goes_on_from_its_own_picture(service: Stack, tmp_path: Path) -> None:
    program = str(EXAMPLES / "agent_loop.py")
    said = run_example(service, tmp_path, [sys.executable, program, ".", "a blue square", "hardcore porn photo"])
    assert "jobs at a time: 1" in said
    assert "'a blue square': 2 pictures, the last with seed " in said
    assert "I will not paint 'hardcore porn photo'." in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["wish-1-1.png", "wish-1-2.png"]


def test_no_example_is_left_untried() -> None:
    assert {path.name for path in EXAMPLES.iterdir() if path.is_file()} == {*COMMANDS, "agent_loop.py"}
