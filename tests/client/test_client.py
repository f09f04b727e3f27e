"""The Python client against the running service."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import DEVELOPMENT_KEY, picture_bytes
from tests.e2e.conftest import Stack
from umrgen_client import (
    AsyncClient,
    Client,
    ConcurrentLimit,
    InvalidImage,
    InvalidRequest,
    Job,
    JobCancelled,
    NotConfigured,
    NotFound,
    ReferenceNotFound,
    Retry,
    SafetyViolation,
    Unauthorized,
    WaitTimeout,
)

IMPATIENT = Retry(patience_s=0, outage_s=0)


def test_a_prompt_and_a_file_become_a_picture_in_one_call(client: Client, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(picture_bytes(120, 90))
    seen: list[Job] = []
    picture = client.run(
        "a red circle", references=[photo], width=96, height=64, steps=2, seed=7, on_progress=seen.append
    )
    assert Image.open(io.BytesIO(picture.data)).size == (96, 64)
    assert (picture.job.state, picture.job.seed, picture.job.prompt) == ("completed", 7, "a red circle")
    assert seen[-1].state == "completed"
    assert {job.id for job in seen} == {picture.job.id}
    path = picture.save(tmp_path / "out.png")
    assert path.read_bytes() == picture.data
    assert [name.name for name in tmp_path.iterdir()].count("out.png") == 1


def test_a_job_is_waited_for_and_saved_and_lists_itself(client: Client, tmp_path: Path) -> None:
    job = client.generate("a blue square", width=64, height=64, steps=2)
    assert job.state in ("queued", "running", "completed")
    done = job.wait(60)
    assert (done.state, done.width, done.steps, done.bytes) == ("completed", 64, 2, len(done.fetch().data))
    saved = done.save(tmp_path / "square.png")
    assert hashlib.sha256(saved.read_bytes()).hexdigest() == done.sha256
    assert job.refresh() == client.status(job.id) == done
    page = client.list("completed", limit=1)
    assert page.jobs == (done,)
    assert client.list(limit=1, cursor=page.next_cursor).jobs != page.jobs
    client.erase(job.id)
    with pytest.raises(NotFound):
        client.status(job.id)


def test_path_bytes_file_and_pillow_image_are_uploaded_the_same(client: Client, tmp_path: Path) -> None:
    content = picture_bytes(70, 80, seed=3)
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with path.open("rb") as file:
        kept = [client.upload(source) for source in (path, str(path), content, bytearray(content), file)]
    assert len({reference.filename for reference in kept}) == 1
    drawn = client.upload(Image.open(path))
    assert (drawn.width, drawn.height) == (70, 80)
    cmyk = client.upload(Image.new("CMYK", (64, 64)))
    assert cmyk.filename in {reference.filename for reference in client.references()}
    client.delete_reference(cmyk)
    assert cmyk.filename not in {reference.filename for reference in client.references()}


def test_references_may_be_uploads_names_urls_and_earlier_pictures(client: Client) -> None:
    kept = client.upload(picture_bytes(64, 64, seed=4))
    first = client.run("the reference on a green background", references=[kept, kept.url], width=64, height=64, steps=1)
    assert first.job.reference_images == (kept.filename, kept.url)
    second = client.run("a circle", references=[first, kept.filename], width=64, height=64, steps=1)
    assert second.job.reference_images == (first.job.image_url, kept.filename)


def test_events_tell_of_every_stage_and_resume_where_they_are_told_to(client: Client) -> None:
    job = client.generate("a red circle", width=64, height=64, steps=1)
    events = list(client.events(job.id))
    assert events[-1].kind == "done"
    assert events[-1].job.state == "completed"
    assert [event.id for event in events] == sorted({event.id for event in events})
    assert list(client.events(job.id, events[-1].id)) == []


def test_a_second_job_waits_for_its_place_or_is_refused_at_once(client: Client, service: Stack) -> None:
    first = client.generate("a red circle", steps=20)
    with Client(service.url, DEVELOPMENT_KEY, retry=IMPATIENT) as hasty, pytest.raises(ConcurrentLimit) as refused:
        hasty.generate("a blue circle")
    assert refused.value.details["job_id"] == first.id
    assert refused.value.retry_after
    with pytest.raises(WaitTimeout) as late:
        first.wait(0.01)
    assert late.value.job.id == first.id
    second = client.generate("a blue circle", width=64, height=64, steps=1)
    assert client.status(first.id).ended
    assert second.wait(60).state == "completed"


def test_a_cancelled_job_is_an_error_unless_it_is_not_to_be(client: Client) -> None:
    job = client.generate("a red circle", steps=50)
    job.cancel()
    with pytest.raises(JobCancelled) as cancelled:
        job.wait(60)
    assert cancelled.value.job.state == "cancelled"
    assert job.wait(check=False).state == "cancelled"
    with pytest.raises(ValueError, match="has no picture"):
        job.refresh().fetch()


def test_the_same_idempotency_key_is_the_same_job(client: Client) -> None:
    first = client.generate("a red circle", width=64, height=64, steps=1, seed=1, idempotency_key="once")
    first.wait(60)
    assert client.generate("a red circle", width=64, height=64, steps=1, seed=1, idempotency_key="once").id == first.id


def test_models_and_me_say_what_may_be_asked_for(client: Client) -> None:
    (model,) = client.models()
    assert (model.name, model.default, model.steps.default, model.references.max) == ("tiny-klein", True, 4, 2)
    me = client.me()
    assert (me.session_id, me.limits["concurrent_jobs"], me.current_jobs) == ("sid_ext_gen", 1, ())


def test_every_refusal_is_a_class_with_the_services_words(client: Client, service: Stack) -> None:
    with pytest.raises(InvalidRequest) as invalid:
        client.generate("x", width=5, steps=99)
    assert [(one.field, one.nearest) for one in invalid.value.fields] == [("width", 64), ("steps", 50)]
    assert (invalid.value.code, invalid.value.status, invalid.value.retry_after) == ("invalid_request", 400, None)
    assert invalid.value.request_id
    with pytest.raises(SafetyViolation) as violation:
        client.generate("hardcore porn photo")
    assert violation.value.details["category"]
    with pytest.raises(InvalidImage):
        client.upload(b"not a picture")
    with pytest.raises(ReferenceNotFound):
        client.generate("x", references=[f"image_{'1' * 37}.png"])
    with pytest.raises(FileNotFoundError):
        client.generate("x", references=["no-such-file.png"])
    with pytest.raises(NotFound):
        client.status("ext_nobody/../x")
    with Client(service.url, "wrong") as stranger, pytest.raises(Unauthorized):
        stranger.me()


def test_url_and_key_come_from_the_environment_or_are_asked_for(
    service: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("UMRGEN_URL", "UMRGEN_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(NotConfigured, match="UMRGEN_URL"):
        Client()
    monkeypatch.setenv("UMRGEN_URL", f"{service.url}/")
    with pytest.raises(NotConfigured, match="UMRGEN_API_KEY"):
        Client()
    monkeypatch.setenv("UMRGEN_API_KEY", DEVELOPMENT_KEY)
    with Client() as client:
        assert client.me().session_id == "sid_ext_gen"


async def test_the_async_client_does_the_same(service: Stack, tmp_path: Path) -> None:
    told: list[str] = []

    async def tell(job: object) -> None:
        told.append(job.state)  # type: ignore[attr-defined]

    async with AsyncClient(service.url, DEVELOPMENT_KEY) as client:
        kept = await client.upload(picture_bytes(64, 64, seed=5))
        job = await client.generate("a circle", references=[kept], width=64, height=64, steps=1)
        kinds = [event.kind async for event in client.events(job.id)]
        assert kinds[-1] == "done"
        done = await job.wait(60, tell)
        assert told[-1] == "completed"
        assert (await done.save(tmp_path / "a.png")).stat().st_size == done.bytes
        picture = await client.run("a square", width=64, height=64, steps=1, timeout_s=60)
        assert picture.job.id != job.id
        assert (await client.list(limit=1)).jobs == (picture.job,)
        assert [model.name for model in await client.models()] == ["tiny-klein"]
        assert (await client.me()).current_jobs == ()
        assert kept.filename in {reference.filename for reference in await client.references()}
        assert await job.refresh() == done
        with pytest.raises(NotFound):
            await client.cancel("ext_none")


def test_both_clients_have_the_same_calls_with_the_same_arguments() -> None:
    import inspect

    from umrgen_client import AsyncJob

    for one, other in ((Client, AsyncClient), (Job, AsyncJob)):
        names = [name for name in vars(one) if not name.startswith("_") and callable(getattr(one, name))]
        assert names == [name for name in vars(other) if not name.startswith("_") and callable(getattr(other, name))]
        for name in names:
            assert list(inspect.signature(getattr(one, name)).parameters) == list(
                inspect.signature(getattr(other, name)).parameters
            ), name
