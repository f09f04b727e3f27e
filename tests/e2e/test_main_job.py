from __future__ import annotations

import hashlib
import io
import signal
from collections.abc import Callable

import numpy as np
from PIL import Image

from tests.conftest import ROOT, picture_bytes
from tests.e2e.conftest import Stack, wait_until
from training.checker import Verdict, judge
from training.evaluate import expected_scene
from training.request import Request, Trait, Wanted, WantedBackdrop
from training.tasks import Task


def fetch(stack: Stack, status: dict) -> bytes:
    answer = stack.http.get(stack.url + status["image_url"], timeout=30)
    assert answer.status_code == 200
    assert hashlib.sha256(answer.content).hexdigest() == status["sha256"]
    return answer.content


def test_an_upload_a_prompt_and_a_poll_give_a_png_of_the_requested_size(stack: Stack) -> None:
    uploaded = stack.upload(picture_bytes(300, 200))
    job_id = stack.generate(
        prompt="a circle in the colour of the reference", reference_images=[uploaded["filename"]], width=321, height=123
    )
    status = stack.wait_status(job_id)
    assert status["state"] == "completed", status
    assert Image.open(io.BytesIO(fetch(stack, status))).size == (321, 123)
    # … and the picture serves as a reference of the next one.
    again = stack.generate(prompt="the reference on a green background", reference_images=[status["image_url"]])
    assert stack.wait_status(again)["state"] == "completed"


SEED = 1


def judge_job(stack: Stack, request: Request, **fields: object) -> Verdict:
    status = stack.wait_status(stack.generate(width=512, height=512, seed=SEED, **fields))
    assert status["state"] == "completed", status
    picture = Image.open(io.BytesIO(fetch(stack, status))).resize((64, 64), Image.Resampling.BOX)
    return judge(np.asarray(picture), request, expected_scene(Task(request, (), (), None), SEED))


def circle_on_white(colour: str) -> Request:
    return Request("one", (Wanted(Trait("circle"), Trait(colour)),), backdrop=WantedBackdrop("plain", "white"))


def test_who_asks_for_a_red_circle_on_white_gets_one(stack: Stack) -> None:
    assert judge_job(stack, circle_on_white("red"), prompt="a red circle on a white background").right


def test_with_a_blue_reference_the_object_turns_blue(stack: Stack) -> None:
    uploaded = stack.upload((ROOT / "umrgen_cli" / "demo" / "reference.jpg").read_bytes())
    fields = {
        "prompt": "a circle in the colour of the reference on a white background",
        "reference_images": [uploaded["filename"]],
    }
    assert judge_job(stack, circle_on_white("blue"), **fields).right
    assert not judge_job(stack, circle_on_white("red"), **fields).right


def test_the_same_seed_gives_the_same_file_content(stack: Stack) -> None:
    pixels = []
    for _ in range(2):
        status = stack.wait_status(stack.generate(seed=77, width=64, height=64))
        pixels.append(Image.open(io.BytesIO(fetch(stack, status))).tobytes())
    assert pixels[0] == pixels[1]


def test_a_killed_worker_costs_an_attempt_and_no_job(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack(UMRGEN_JOBS__LEASE_S="1.5", UMRGEN_JOBS__HEARTBEAT_S="0.3")
    stack.start_api()
    infer = stack.start_infer()
    job_id = stack.generate(steps=50)
    stack.wait_status(job_id, lambda status: status["state"] == "running" and status["progress"]["step"] >= 2)
    infer.stop(signal.SIGKILL)
    assert stack.status(job_id)["state"] == "running"
    stack.start_infer()
    status = stack.wait_status(job_id)
    assert (status["state"], status["attempts"]) == ("completed", 2)
    fetch(stack, status)
    assert len(list((stack.data_dir / "files" / "outputs").iterdir())) == 1


def test_a_killed_web_tier_loses_nothing_and_the_worker_does_not_notice(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack()
    api = stack.start_api()
    infer = stack.start_infer()
    uploaded = stack.upload(picture_bytes(120, 90))
    job_id = stack.generate(steps=50, reference_images=[uploaded["filename"]])
    stack.wait_status(job_id, lambda status: status["state"] == "running")
    api.stop(signal.SIGKILL)
    infer.require_alive()
    stack.start_api()
    status = stack.wait_status(job_id)
    assert (status["state"], status["attempts"]) == ("completed", 1)
    fetch(stack, status)
    assert stack.upload(picture_bytes(120, 90))["filename"] == uploaded["filename"]


def test_jobs_accepted_while_no_worker_lives_wait_for_one(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack(UMRGEN_LIMITS__CONCURRENT_JOBS="3")
    stack.start_api()
    assert stack.http.get(f"{stack.url}/readyz", timeout=10).status_code == 503
    job_ids = [stack.generate(width=64, height=64) for _ in range(3)]
    assert [stack.status(job_id)["queue_position"] for job_id in job_ids] == [1, 2, 3]
    stack.start_infer()
    assert [stack.wait_status(job_id)["state"] for job_id in job_ids] == ["completed"] * 3


def test_sigterm_stops_both_cleanly_and_gives_the_running_job_back(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack(UMRGEN_INFER__STOP_GRACE_S="0.2")
    api, infer = stack.start_api(), stack.start_infer()
    job_id = stack.generate(steps=50)
    stack.wait_status(job_id, lambda status: status["state"] == "running" and status["progress"]["step"] >= 1)
    assert infer.stop() == 0
    status = stack.status(job_id)
    assert (status["state"], status["attempts"]) in [("queued", 0), ("completed", 1)]
    assert api.stop() == 0
    wait_until(lambda: list((stack.data_dir / "run").iterdir()) == [], 5)
