"""The pages for models say what is so: their commands are run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import requests
from PIL import Image

from tests.conftest import DEVELOPMENT_KEY, picture_bytes
from tests.e2e.conftest import Stack


def get_page(stack: Stack, name: str) -> str:
    answer = requests.get(f"{stack.url}/{name}", timeout=10)
    assert answer.status_code == 200
    assert answer.encoding == "utf-8"
    return answer.text


def test_the_commands_of_the_skill_make_the_picture(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(picture_bytes(200, 150, "JPEG"))
    skill = get_page(stack, "skill.md")
    commands = "".join(re.findall(r"```sh\n(.*?)```", skill, re.DOTALL))
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=tmp_path,
        env={**os.environ, "BASE": stack.url, "KEY": DEVELOPMENT_KEY, "PICTURE": "photo.jpg"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert Image.open(tmp_path / "picture.png").size == (512, 512)


def test_the_skill_is_sixty_lines_at_most(stack: Stack) -> None:
    assert len(get_page(stack, "skill.md").splitlines()) <= 60


@pytest.mark.parametrize("name", ["skill.md", "llms.txt"])
def test_what_the_pages_name_exists(stack: Stack, name: str) -> None:
    page = get_page(stack, name)
    for path in set(re.findall(r"\]\((/[^)]*)\)", page)):
        assert stack.http.get(stack.url + path, timeout=10).status_code == 200, path
    for code in set(re.findall(r"`([a-z]+_[a-z_]+)`", page)):
        assert code in PARTS, code


PARTS = {
    "invalid_request",
    "safety_violation",
    "concurrent_limit",
    "retry_after",
    "image_url",
    "reference_images",
}
