from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from PIL import Image

from tests.conftest import ROOT

TIMEOUT_S = 240


def run_demo(data_dir: Path, config: Path = ROOT / "config.toml") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "umrgen_cli.demo", "--config", str(config), "--data-dir", str(data_dir)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


def test_the_demo_saves_a_picture_says_where_and_stops_what_it_started(tmp_path: Path) -> None:
    done = run_demo(tmp_path / "demo")
    assert done.returncode == 0, done.stderr
    path = tmp_path / "demo" / "umrgen-demo.png"
    assert str(path) in done.stdout
    assert Image.open(path).size == (512, 512)
    for stage in ("migrate the database", "load the model", "upload the reference", "generate", "of the job: denoise"):
        assert stage in done.stdout
    assert list((tmp_path / "demo" / "run").iterdir()) == []


def test_a_demo_that_fails_says_why_and_where_the_logs_are(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text((ROOT / "config.toml").read_text().replace("package:umrgen_infer/tiny_klein", "/nowhere"))
    done = run_demo(tmp_path / "demo", config)
    assert done.returncode != 0
    assert "/nowhere holds no pipeline" in done.stderr
    assert str(tmp_path / "demo" / "demo-infer.log") in done.stderr


def test_a_broken_configuration_stops_both_daemons_with_the_key(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text((ROOT / "config.toml").read_text().replace("port = 3088", "prot = 3088"))
    for module in ("umrgen_api", "umrgen_infer"):
        command = [sys.executable, "-m", module, "--config", str(config)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 2
        assert "[api] prot: unknown key; known here: host, port" in done.stderr
