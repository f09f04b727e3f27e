"""`umrgen-infer check` as the owner of a box runs it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import ROOT
from tests.infer.shipped import shipped_profiles, shrink
from umrgen_core.errors import CANNOT_START
from umrgen_core.profiles import ModelProfile
from umrgen_infer import check
from umrgen_infer.painter import DeviceLost, OutOfMemory
from umrgen_infer.pipelines.diffusers_painter import DiffusersPainter

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("weights")


@pytest.fixture
def run(tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def run_check(name: str, *, named: str = "mine", **changes: Any) -> tuple[int, str, str]:
        config = tmp_path / "config.toml"
        profile = shrink(name, weights, **changes)
        capsys.readouterr()  # the progress of writing the weights
        config.write_text("[infer]\nmodels = ['mine']\n[models.mine]\n" + write_profile(profile))
        monkeypatch.setattr(sys, "argv", ["check", "--config", str(config), "--profile", named])
        status = check.main()
        return status, *capsys.readouterr()

    return run_check


def write_profile(profile: ModelProfile) -> str:
    lines = []
    for key, value in profile.model_dump(exclude_none=True, mode="json").items():
        if isinstance(value, dict):
            pairs = ", ".join(f"{name} = {write_value(inner)}" for name, inner in value.items())
            lines.append(f"{key} = {{ {pairs} }}")
        else:
            lines.append(f"{key} = {write_value(value)}")
    return "\n".join(lines)


def write_value(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


@pytest.mark.parametrize("name", ["flux2-klein-4b", "z-image-turbo", "qwen-image-edit-2511"])
def test_a_shipped_profile_is_checked_with_and_without_references(run: Run, name: str) -> None:
    status, out, errors = run(name)
    assert (status, errors) == (0, "")
    counts = {int(count) for count in re.findall(r"^ +64x64 +(\d) +[\d.]+ +[\d.]+ +[\d.]+", out, re.MULTILINE)}
    profile = shipped_profiles()[name]
    assert {profile.min_references, profile.references} <= counts
    assert re.search(r"memory of the computer, at most: \d+\.\d\d GB", out)
    assert "negative_prompt" in out
    assert 'mine can be served: [infer] models = ["mine"]' in out


def test_the_licence_is_told_as_it_is_written(run: Run) -> None:
    assert "FLUX.1 [dev] Non-Commercial License" in run("flux1-kontext-dev")[1]


def test_a_profile_that_takes_everything_ignores_nothing(run: Run) -> None:
    status, out, _ = run("z-image-turbo", negative=True, guidance=4.0)
    assert status == 0
    assert "ignored or refused in requests: nothing" in out


@pytest.mark.parametrize(
    ("name", "changes", "sentence"),
    [
        ("sdxl-turbo", {"ip_adapter_scale": 0.0}, "red and blue ones paint the same picture"),
        ("flux2-klein-4b", {"path": "/nowhere"}, "model_index.json"),
        ("flux2-klein-4b", {"arguments": {"strength": 0.5}}, "'strength'"),
        ("flux2-klein-4b", {"offload": "model"}, "offload"),
    ],
)
def test_a_promise_that_is_not_kept_is_told_in_a_sentence(
    run: Run, name: str, changes: dict[str, Any], sentence: str
) -> None:
    status, _, errors = run(name, **changes)
    assert status == CANNOT_START
    assert "[models.mine]" in errors
    assert sentence in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(("error", "sentence"), [(OutOfMemory(), "does not suffice"), (DeviceLost("bang"), "bang")])
def test_a_device_that_fails_is_told_in_a_sentence(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: Exception, sentence: str
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(DiffusersPainter, "paint", fail)
    status, _, errors = run("flux2-klein-4b")
    assert status == CANNOT_START
    assert sentence in errors


def run_command(*arguments: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "umrgen_infer", *arguments],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_the_command_checks_the_embedded_model_in_a_process_of_its_own() -> None:
    status, out, errors = run_command("check", "--profile", "tiny-klein")
    assert (status, errors) == (0, "")
    assert "tiny-klein can be served" in out


def test_the_command_takes_the_config_before_or_after_its_name(tmp_path: Path) -> None:
    config = tmp_path / "own.toml"
    config.write_text((ROOT / "config.toml").read_text().replace("models.sdxl-turbo", "models.own"))
    for arguments in (("--config", str(config), "fetch"), ("fetch", "--config", str(config))):
        status, _, errors = run_command(*arguments, "--profile", "nobodys")
        assert status == CANNOT_START
        assert ", own, " in errors


def test_a_profile_that_nobody_described_is_told_with_those_that_are(run: Run) -> None:
    status, _, errors = run("flux2-klein-4b", named="nobodys")
    assert status == CANNOT_START
    assert "there are: mine" in errors


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"batch": 2}, r"^painted together, up to 64x64: (up to 2, which is \d+\.\d\d times as fast|none)$"),
        ({"batch": 2, "min_references": 1}, "^painted together: none, for want of a small size"),
    ],
)
def test_what_was_found_of_batches_is_told(run: Run, changes: dict[str, Any], said: str) -> None:
    status, out, _ = run("flux2-klein-4b", steps=1, **changes)
    assert status == 0
    assert re.search(said, out, re.MULTILINE)
    assert "together" not in run("flux2-klein-4b", steps=1)[1]
