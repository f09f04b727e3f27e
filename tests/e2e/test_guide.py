"""The guide's own lines, run as they stand but for the host, the picture's path and the ids in them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import DEVELOPMENT_KEY, ROOT, picture_bytes
from tests.e2e.conftest import Stack

GUIDE = (ROOT / "docs" / "external-api-guide.md").read_text(encoding="utf-8")
HOST = "https://umrgen.share.zrok.io"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)


def run_shell(command: str, folder: Path) -> dict:
    assert shutil.which("curl"), "curl is needed: apt install curl"
    done = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, timeout=60, check=True)
    return json.loads(done.stdout)


def test_the_guides_curl_lines_work_as_shown(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "image.jpg").write_bytes(picture_bytes(200, 150, "JPEG"))
    upload_line, generate_line = blocks("bash")
    uploaded = run_shell(
        upload_line.replace(HOST, stack.url).replace("/path/to/your/image.jpg", str(tmp_path / "image.jpg")), tmp_path
    )
    assert uploaded["success"] is True
    assert uploaded["url"] == f"/references/sid_ext_gen/{uploaded['filename']}?session_id=sid_ext_gen"
    accepted = run_shell(
        generate_line.replace(HOST, stack.url).replace("image_1739268682123.jpg", uploaded["filename"]), tmp_path
    )
    assert (accepted["success"], accepted["message"]) == (True, "Job accepted and queued")
    status = stack.wait_status(accepted["job_id"])
    assert (status["success"], status["state"], status["job_id"]) == (True, "completed", accepted["job_id"])
    assert re.fullmatch(r"/outputs/sid_ext_gen/umrgen_\d+\.png\?session_id=sid_ext_gen", status["image_url"])


def test_the_guides_payload_is_accepted_and_says_what_it_ignores(stack: Stack, tmp_path: Path) -> None:
    uploaded = stack.upload(picture_bytes(200, 150, "JPEG"))
    payload = json.loads(next(block for block in blocks("json") if "negative" in block))
    payload["reference_images"] = [uploaded["filename"]]
    answer = stack.http.post(f"{stack.url}/api/v1/generate", json=payload, timeout=30)
    assert (answer.status_code, answer.json()["ignored"]) == (202, ["negative"])
    stack.wait_status(answer.json()["job_id"])


def test_the_guides_python_program_prints_its_result(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "style_reference.jpg").write_bytes(picture_bytes(256, 256, "JPEG"))
    (program,) = blocks("python")
    assert DEVELOPMENT_KEY in program
    done = subprocess.run(
        [sys.executable, "-c", program.replace(HOST, stack.url)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    url = done.stdout.strip().removeprefix("Result: ")
    picture = stack.http.get(url, headers={"Authorization": ""}, timeout=30)
    assert (picture.status_code, picture.headers["Content-Type"]) == (200, "image/png")


@pytest.mark.parametrize("status", ["401", "429", "400", "404", "413"])
def test_the_guides_errors_are_the_contracts(status: str) -> None:
    from umrgen_api.errors import HTTP_ERRORS

    error = re.search(rf"`{status}` \| `([^`]+)`", GUIDE)
    assert error
    assert error[1] in {known.error for known in HTTP_ERRORS.values() if known.status == int(status)}
