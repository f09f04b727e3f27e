"""The command `umrgen` against the running service."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.client.conftest import Umrgen, command, environment_of
from tests.conftest import ROOT, picture_bytes
from tests.e2e.conftest import Stack, wait_until
from umrgen_cli.umrgen import COMPLETE_VARIABLE, app
from umrgen_client import Client
from umrgen_core.config import load_settings
from umrgen_core.errors import ConfigError

SMALL = ("--size", "96x64", "--steps", "1")


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_one_command_turns_a_prompt_and_references_into_a_file(umrgen: Umrgen, tmp_path: Path) -> None:
    for name in ("a.jpg", "b.png"):
        (tmp_path / name).write_bytes(picture_bytes(80, 80, "JPEG" if name.endswith("jpg") else "PNG"))
    done = umrgen("generate", "a circle", "--ref", "a.jpg", "--ref", "b.png", *SMALL, "--seed", "5", "-o", "out.png")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "out.png  96x64  seed 5\n"
    assert Image.open(tmp_path / "out.png").size == (96, 64)


def test_json_is_one_object_a_line_and_nothing_else(umrgen: Umrgen, tmp_path: Path) -> None:
    done = umrgen("generate", "a circle", *SMALL, "--negative", "blur", "--json")
    (job,) = objects(done.stdout)
    assert (done.returncode, done.stderr, job["state"], job["ignored"]) == (0, "", "completed", ["negative"])
    assert Path(job["saved"]).name == f"{job['job_id']}.png"
    assert (tmp_path / job["saved"]).exists()
    (status,) = objects(umrgen("status", job["job_id"], "--json").stdout)
    assert status["sha256"] == job["sha256"]
    assert objects(umrgen("list", "--json", "--limit", "1").stdout)[0]["job_id"] == job["job_id"]
    (model,) = objects(umrgen("models", "--json").stdout)
    assert model["name"] == "tiny-klein"
    (me,) = objects(umrgen("me", "--json").stdout)
    assert me["session_id"] == "sid_ext_gen"


def test_people_get_tables_and_sentences(umrgen: Umrgen, tmp_path: Path) -> None:
    (tmp_path / "[b]a.png").write_bytes(picture_bytes(64, 64))
    uploaded = umrgen("upload", "[b]a.png")
    assert re.fullmatch(r"image_\d{37,}\.png\n", uploaded.stdout)
    submitted = umrgen("generate", "a [red] circle", "--ref", uploaded.stdout.strip(), *SMALL, "--no-wait")
    job = submitted.stdout.strip()
    assert umrgen("wait", job, "-o", "x.png").stdout.startswith("x.png  96x64  seed ")
    assert f"{job}  completed  /outputs/" in umrgen("status", job).stdout
    assert f"{job}  completed  /outputs/" in umrgen("cancel", job).stdout
    listing = umrgen("list", "--state", "completed", "--limit", "3").stdout
    assert job in listing
    assert "a [red] circle" in listing
    assert "tiny-klein (default)" in umrgen("models").stdout
    assert "concurrent_jobs 0/1" in umrgen("me").stdout


def test_a_picture_can_go_into_a_pipe(service: Stack, tmp_path: Path) -> None:
    done = subprocess.run(
        command("generate", "-", *SMALL, "-o", "-"),
        input=b"a red circle",
        cwd=tmp_path,
        env=environment_of(service.url),
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert Image.open(io.BytesIO(done.stdout)).size == (96, 64)


@pytest.mark.parametrize(
    ("arguments", "status", "code"),
    [
        (["generate", "x", "--steps", "99"], 3, "invalid_request"),
        (["status", "ext_none"], 3, "job_not_found"),
        (["generate", "x", "--ref", "none.png"], 2, "file_error"),
        (["me", "--url", "http://127.0.0.1:1"], 4, "unreachable"),
        (["me", "--url", "ftp://x"], 2, "not_configured"),
    ],
)
def test_each_kind_of_failure_has_its_status(umrgen: Umrgen, arguments: list[str], status: int, code: str) -> None:
    done = umrgen(*arguments, "--json", "--patience", "0")
    (error,) = objects(done.stdout)
    assert (done.returncode, done.stderr, error["success"], error["code"]) == (status, "", False, code)


def test_people_are_told_what_would_work_instead(umrgen: Umrgen) -> None:
    done = umrgen("generate", "x", "--steps", "99")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == "umrgen: steps: must be at most 50\n  steps: 50 would work\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["generate"],
        ["generate", "x", "--size", "big"],
        ["generate", "x", "--lora", "a:b"],
        ["generate", "x", "-o", "no-such-folder/x.png"],
        ["generate", "x", "-o", "-", "--json"],
        ["list", "--state", "odd"],
        ["paint"],
    ],
)
def test_wrong_usage_is_status_2_before_anything_is_sent(arguments: list[str]) -> None:
    done = CliRunner().invoke(app, arguments, env=environment_of("http://127.0.0.1:1"))
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr


def test_a_failed_or_cancelled_job_is_status_1_and_a_late_one_5(umrgen: Umrgen, client: Client) -> None:
    job = client.generate("a red circle", steps=50)
    late = umrgen("wait", job.id, "--timeout", "0", "--json")
    assert (late.returncode, objects(late.stdout)[0]["code"]) == (5, "wait_timeout")
    job.cancel()
    done = umrgen("wait", job.id, "--json")
    (answer,) = objects(done.stdout)
    assert (done.returncode, answer["code"], answer["state"]) == (1, "cancelled", "cancelled")


@pytest.mark.parametrize("cancels", [False, True])
def test_ctrl_c_ends_the_waiting_and_the_job_only_on_request(
    service: Stack, client: Client, tmp_path: Path, cancels: bool
) -> None:
    extra = ["--cancel-on-interrupt"] if cancels else []
    leader, follower = pty.openpty()
    before = {job.id for job in client.list().jobs}
    process = subprocess.Popen(
        command("generate", f"ctrl-c {cancels}", "--steps", "50", *extra),
        cwd=tmp_path,
        env={**environment_of(service.url), "TERM": "xterm", "COLUMNS": "100"},
        stdout=subprocess.PIPE,
        stderr=follower,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    os.close(follower)
    try:
        shown = read_until(leader, "queued|running")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        shown += read_until(leader, "cancel|goes on", "")
    finally:
        process.kill()
        os.close(leader)
    (job,) = [job for job in client.list().jobs if job.id not in before]
    assert job.id in shown
    if not cancels:
        assert "The job goes on" in shown
        assert not job.cancel_requested
        job.cancel()
    wait_until(lambda: job.refresh().ended, 60)
    assert not cancels or job.refresh().state == "cancelled"


def read_until(terminal: int, pattern: str, text: str = "") -> str:
    """What a terminal shows until `pattern` is in it, or its other side is closed."""
    deadline = time.monotonic() + 30
    while not re.search(pattern, text) and time.monotonic() < deadline:
        try:
            text += os.read(terminal, 4096).decode(errors="replace")
        except OSError:  # closed at the other side
            break
    return text


def test_shells_are_told_how_to_complete_the_command(umrgen: Umrgen) -> None:
    assert "complete -o default -F _umrgen_completion umrgen" in umrgen("completion", "bash").stdout
    for shell, line in (("zsh", "#compdef umrgen"), ("fish", "complete --command umrgen")):
        assert (
            line in CliRunner().invoke(app, [], env={COMPLETE_VARIABLE: f"source_{shell}"}, prog_name="umrgen").stdout
        )
    asked = {**environment_of(""), "_UMRGEN_COMPLETE": "complete_bash", "COMP_WORDS": "umrgen mo", "COMP_CWORD": "1"}
    done = subprocess.run(command(), env=asked, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout.split() == ["models"]


def test_the_variables_of_the_client_do_not_stop_a_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UMRGEN_URL", "http://127.0.0.1:3088")
    monkeypatch.setenv("UMRGEN_API_KEY", "umr_x")
    assert load_settings(ROOT / "config.toml").api.port == 3088
    monkeypatch.setenv("UMRGEN_API_KEYS", "umr_x")
    with pytest.raises(ConfigError, match="UMRGEN_API_KEYS"):
        load_settings(ROOT / "config.toml")


def test_the_command_starts_fast_and_without_the_services_own_parts() -> None:
    code = "import sys, umrgen_cli.umrgen; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    heavy = {"torch", "numpy", "PIL", "pydantic", "aiohttp", "sqlalchemy", "umrgen_core", "umrgen_api"}
    assert loaded & heavy == set()
    assert len(loaded) < 700
