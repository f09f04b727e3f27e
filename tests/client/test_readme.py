"""The README's way from a key to a picture, run as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from PIL import Image

from tests.conftest import DEVELOPMENT_KEY, ROOT, picture_bytes
from tests.e2e.conftest import Stack

README = (ROOT / "README.md").read_text(encoding="utf-8").split("## From a key to a picture", 1)[1].split("\n## ", 1)[0]


def run(command: list[str], stack: Stack, folder: Path) -> None:
    environment = {
        **os.environ,
        "UMRGEN_URL": stack.url,
        "UMRGEN_API_KEY": DEVELOPMENT_KEY,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_way_of_the_readme_ends_with_a_picture(service: Stack, tmp_path: Path) -> None:
    (shell,) = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    (program,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (tmp_path / "photo.jpg").write_bytes(picture_bytes(200, 150, "JPEG"))
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    commands = shell.split("\n", 1)[1]  # without the line that names the address: this service has another
    run(["bash", "-euo", "pipefail", "-c", commands], service, tmp_path)
    for name in ("out.png", "picture.png"):
        assert Image.open(tmp_path / name).format == "PNG"
    assert list((tmp_path / "pictures").glob("*.png"))
    (tmp_path / "out.png").unlink()
    run([sys.executable, "-c", program], service, tmp_path)
    assert Image.open(tmp_path / "out.png").format == "PNG"
