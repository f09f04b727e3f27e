"""The official client of the OpenAI API, unchanged but for its base URL, against both daemons."""

from __future__ import annotations

import asyncio
import base64
import io
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types import ImageEditCompletedEvent, ImageGenCompletedEvent
from PIL import Image

from tests.conftest import DEVELOPMENT_KEY, ROOT, picture_bytes
from tests.e2e.conftest import Stack, wait_until

PUBLIC_URL = "https://umrgen.example"
PROMPT = "a red circle"


@pytest.fixture(scope="module")
def service(stack: Stack) -> Iterator[Stack]:
    """A web tier of its own, which has a public URL, before the worker that is running already."""
    with ExitStack() as exits:
        environment = {"API__PUBLIC_URL": PUBLIC_URL, "AUTH__DEVELOPMENT_KEY_PUBLIC": "true"}
        environment["LIMITS__RATE_PER_MINUTE"] = "1000"
        own = Stack(stack.data_dir, exits, **{f"UMRGEN_{name}": value for name, value in environment.items()})
        own.start_api()
        yield own


@pytest.fixture(scope="module")
def client(service: Stack) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key=DEVELOPMENT_KEY) as opened:
        yield opened


def size_of(picture: Any) -> tuple[int, int]:
    """The size of a PNG that came as base64."""
    opened = Image.open(io.BytesIO(base64.b64decode(picture.b64_json, validate=True)))
    assert opened.format == "PNG"
    return opened.size


def list_jobs(service: Stack) -> list[dict[str, Any]]:
    jobs: list[dict[str, Any]] = service.http.get(f"{service.url}/api/v1/jobs", timeout=30).json()["jobs"]
    return jobs


def wait_until_free(service: Stack) -> None:
    """Until the agent has no job under way."""
    ended = ("completed", "failed", "cancelled")
    wait_until(lambda: all(job["state"] in ended for job in list_jobs(service)), 60)


def test_a_prompt_gives_a_picture(client: openai.OpenAI) -> None:
    answer = client.images.generate(model="gpt-image-1", prompt=PROMPT, size="160x96", quality="high", user="me")
    assert answer.data
    assert [size_of(picture) for picture in answer.data] == [(160, 96)]
    assert (answer.size, answer.output_format, answer.background) == ("160x96", "png", "opaque")
    assert answer.created > 1_700_000_000
    assert answer._request_id


def test_a_url_leads_to_the_picture(client: openai.OpenAI, service: Stack) -> None:
    answer = client.images.generate(prompt=PROMPT, size="96x64", response_format="url")
    assert answer.data
    url = answer.data[0].url
    assert url
    assert url.startswith(PUBLIC_URL)
    fetched = service.http.get(url.replace(PUBLIC_URL, service.url), timeout=30)
    assert Image.open(io.BytesIO(fetched.content)).size == (96, 64)


def test_several_pictures_come_with_a_limit_of_one_job(client: openai.OpenAI) -> None:
    answer = client.images.generate(prompt=PROMPT, n=2, size="64x64", extra_body={"seed": 11})
    assert answer.data
    first, second = (picture.b64_json for picture in answer.data)
    assert first != second
    assert [picture.seed for picture in answer.data] == [11, 12]


def test_two_images_are_edited_into_one(client: openai.OpenAI, tmp_path: Path) -> None:
    path = tmp_path / "first.jpg"
    path.write_bytes(picture_bytes(200, 150, "JPEG", seed=1))
    images = [path, ("second.png", picture_bytes(120, 90, seed=2))]
    answer = client.images.edit(image=images, prompt="both in blue", size="128x64", extra_body={"seed": 4})
    assert answer.data
    assert size_of(answer.data[0]) == (128, 64)
    single = client.images.edit(image=path, prompt="the same in blue", size="64x64")
    assert single.data
    assert size_of(single.data[0]) == (64, 64)


def test_the_example_in_the_docs_makes_its_pictures(
    service: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (example,) = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "openai.md").read_text(encoding="utf-8"), re.DOTALL
    )
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jpg").write_bytes(picture_bytes(image_format="JPEG", seed=1))
    (tmp_path / "b.png").write_bytes(picture_bytes(seed=2))
    named: dict[str, Any] = {}
    exec(example.replace("http://127.0.0.1:3088", service.url).replace("umr_…", DEVELOPMENT_KEY), named)
    assert Image.open(tmp_path / "picture.png").size == (512, 512)
    assert size_of(named["answer"].data[0]) == (1024, 1024)


def test_the_models_are_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny-klein"]
    assert client.models.retrieve("tiny-klein").owned_by == "umrgen"


def test_a_stream_brings_the_picture_as_an_event(client: openai.OpenAI) -> None:
    events = list(client.images.generate(prompt=PROMPT, size="64x64", stream=True, partial_images=2))
    assert [type(event) for event in events] == [ImageGenCompletedEvent]
    assert size_of(events[0]) == (64, 64)
    edited = list(client.images.edit(image=picture_bytes(), prompt=PROMPT, size="64x64", stream=True))
    assert [type(event) for event in edited] == [ImageEditCompletedEvent]
    assert size_of(edited[0]) == (64, 64)


def test_a_stream_tells_progress_to_who_asks_for_it(client: openai.OpenAI) -> None:
    body = {"progress": True, "steps": 12}
    *under_way, last = client.images.generate(prompt=PROMPT, size="64x64", stream=True, extra_body=body)
    steps = [event.step for event in under_way]
    assert {event.type for event in under_way} == {"image_generation.progress"}
    assert steps == sorted(steps)
    assert last.type == "image_generation.completed"


def test_errors_are_the_clients_own_exceptions(client: openai.OpenAI) -> None:
    def refused(kind: type[openai.APIStatusError], code: str, **fields: Any) -> openai.APIStatusError:
        asked = {"prompt": PROMPT, "size": "64x64", **fields}
        with pytest.raises(kind) as caught:
            client.with_options(max_retries=0).images.generate(**asked)
        assert caught.value.code == code
        assert caught.value.request_id
        return caught.value

    assert refused(openai.BadRequestError, "invalid_value", size="9000x64").param == "size"
    assert refused(openai.BadRequestError, "invalid_value", output_format="webp").param == "output_format"
    assert refused(openai.BadRequestError, "moderation_blocked", prompt="porn").type == "image_generation_user_error"
    assert "tiny-klein" in refused(openai.NotFoundError, "model_not_found", model="sd-1").message
    key = {"extra_headers": {"Idempotency-Key": "openai-client"}}
    first = client.images.generate(prompt=PROMPT, size="64x64", **key)
    assert client.images.generate(prompt=PROMPT, size="64x64", **key) == first
    refused(openai.ConflictError, "idempotency_conflict", prompt="another", **key)
    with pytest.raises(openai.BadRequestError, match="mask: is not supported"):
        client.images.edit(image=picture_bytes(), mask=picture_bytes(), prompt=PROMPT)
    with pytest.raises(openai.AuthenticationError) as caught:
        client.with_options(api_key="wrong").models.list()
    assert caught.value.code == "invalid_api_key"
    with pytest.raises(openai.NotFoundError, match="/v1/images/generations"):
        client.chat.completions.create(model="gpt-5", messages=[{"role": "user", "content": "x"}])


def test_who_hangs_up_loses_nothing_and_the_clients_retries_wait_for_room(
    client: openai.OpenAI, service: Stack
) -> None:
    body = {"progress": True, "steps": 25}
    stream = client.images.generate(prompt="a hung-up star", size="64x64", stream=True, extra_body=body)
    assert next(iter(stream)).type == "image_generation.progress"
    stream.close()
    (left,) = [job for job in list_jobs(service) if job["prompt"] == "a hung-up star"]
    with pytest.raises(openai.RateLimitError) as caught:
        client.with_options(max_retries=0).images.generate(prompt=PROMPT, size="64x64")
    assert caught.value.code == "rate_limit_exceeded"
    assert int(caught.value.response.headers["Retry-After"]) >= 1
    assert client.with_options(max_retries=10).images.generate(prompt=PROMPT, size="64x64").data
    assert service.wait_status(left["job_id"])["state"] == "completed"


async def test_the_asynchronous_client_works_as_well(service: Stack) -> None:
    wait_until_free(service)
    async with openai.AsyncOpenAI(base_url=f"{service.url}/v1", api_key=DEVELOPMENT_KEY, max_retries=10) as client:
        drawn, edited, models = await asyncio.gather(
            client.images.generate(prompt=PROMPT, size="64x64"),
            client.images.edit(image=[picture_bytes(), picture_bytes(seed=1)], prompt=PROMPT, size="64x64"),
            client.models.list(),
        )
        assert [size_of(answer.data[0]) for answer in (drawn, edited) if answer.data] == [(64, 64)] * 2
        assert [model.id for model in models.data] == ["tiny-klein"]
        streamed = await client.images.generate(prompt=PROMPT, size="64x64", stream=True)
        assert [event.type async for event in streamed] == ["image_generation.completed"]
