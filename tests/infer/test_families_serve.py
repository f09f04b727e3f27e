"""Every shipped profile through its real loading code and the real daemon, over tiny random weights."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus
from PIL import Image, ImageChops

from tests.conftest import make_settings
from tests.infer.shipped import SHIPPED, SMALL_AREA_PX, shipped_profiles, shrink
from umrgen_core.agents import Agent
from umrgen_core.config import Settings
from umrgen_core.files import FileStore, Shelf
from umrgen_core.jobs import Job, JobState
from umrgen_core.reference_store import NewReference
from umrgen_infer.daemon import Daemon
from umrgen_infer.pipelines.load import load_painter

WIDTH, HEIGHT = 64, 96
REFERENCE_SIZE = 100, 60
ORDERED = {"flux2-klein-4b", "flux2-klein-9b-kv", "qwen-image-edit-2511"}


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """More of them only wait for each other over tensors this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(pipeline_qwenimage_edit_plus, "CONDITION_IMAGE_SIZE", SMALL_AREA_PX)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("weights")


@pytest.fixture(params=list(SHIPPED))
def model(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def settings(tmp_path: Path, model: str, weights: Path) -> Settings:
    plain = make_settings(tmp_path / "data", infer={"models": [model], "poll_s": 0.05})
    return plain.model_copy(update={"models": {model: shrink(model, weights)}})


def test_the_tiny_weights_stand_in_for_every_shipped_profile_but_the_embedded_one() -> None:
    assert {*SHIPPED, "tiny-klein"} == set(shipped_profiles())
    assert all(SHIPPED[name].pipeline == shipped_profiles()[name].pipeline for name in SHIPPED)


async def test_a_shipped_profile_is_served_and_its_references_reach_the_model(
    model, settings, database, make_agent, submit, wait_for, references
) -> None:
    agent = await make_agent("alice", concurrent_jobs=10)
    red, blue = [await keep_reference(references, settings, agent, colour) for colour in ("red", "blue")]
    profile, files = settings.models[model], FileStore(settings.storage.data_dir)
    daemon = Daemon(settings, database.clock, database, lambda name: load_painter(name, settings.models[name]))
    serving = asyncio.create_task(daemon.serve())
    try:

        async def paint(*names: str) -> Image.Image:
            asked = {"width": WIDTH, "height": HEIGHT, "seed": 1, "steps": 4, "reference_images": list(names)}
            job: Job = await wait_for(agent, (await submit(agent, **asked)).id)
            assert job.state is JobState.COMPLETED, job.error
            assert job.output is not None
            image = Image.open(io.BytesIO(files.read(Shelf.OUTPUTS, job.output.disk_name)))
            assert (image.format, image.mode, image.size) == ("PNG", "RGB", (WIDTH, HEIGHT))
            return image

        pictures = [await paint(red), await paint(blue)]
        assert not differ(pictures[0], await paint(red))
        if profile.min_references == 0:
            pictures.append(await paint())
        if profile.references > 1:
            pictures.append(await paint(red, blue))
        if model in ORDERED:
            pictures.append(await paint(blue, red))
        for number, picture in enumerate(pictures):
            assert all(differ(picture, other) for other in pictures[:number])
    finally:
        daemon.stop()
        assert await asyncio.wait_for(serving, 10) == 0


async def keep_reference(references: Any, settings: Settings, agent: Agent, colour: str) -> str:
    files = FileStore(settings.storage.data_dir)
    files.prepare()
    buffer = io.BytesIO()
    Image.new("RGB", REFERENCE_SIZE, colour).save(buffer, "PNG")
    disk_name = f"{colour}.png"
    published = files.publish_bytes(Shelf.REFERENCES, disk_name, buffer.getvalue())
    picture = (*REFERENCE_SIZE, published.bytes)
    new = NewReference(
        f"image_{disk_name}", disk_name, "png", *picture, published.sha256, published.sha256, *picture, "png"
    )
    return str((await references.put(agent, new)).filename)


def differ(one: Image.Image, other: Image.Image) -> bool:
    return ImageChops.difference(one, other).getbbox() is not None
