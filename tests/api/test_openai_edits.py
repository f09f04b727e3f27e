"""How many images an edit of the OpenAI API may bring, told before they are on disk."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from tests.api.conftest import Server, StartServer
from tests.api.openai_requests import WIDE, check_error, complete, edit, end, list_jobs
from tests.api.test_upload import list_incoming
from tests.conftest import picture_bytes
from umrgen_core.errors import Unavailable


@pytest.fixture
def arrived(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`arrived(server)`: a list that grows with each file that comes in."""

    def watch(server: Server) -> list[Path]:
        paths: list[Path] = []
        incoming = server.services.files.incoming

        @contextmanager
        def noted() -> Iterator[tuple[BinaryIO, Path]]:
            with incoming() as (target, path):
                paths.append(path)
                yield target, path

        monkeypatch.setattr(server.services.files, "incoming", noted)
        return paths

    return watch


async def test_the_rate_is_asked_before_each_image_is_on_disk(start_server: StartServer, arrived: Any) -> None:
    server = await start_server(limits={**WIDE, "rate_per_minute": 2})
    paths = arrived(server)
    check_error(await edit(server, [picture_bytes(seed=seed) for seed in (1, 2)]), 429, "rate_limit_exceeded")
    assert len(paths) == 1
    assert list_incoming(server) == []
    assert await list_jobs(server) == []


async def test_an_image_counts_once_against_the_rate(start_server: StartServer) -> None:
    server = await start_server(limits={**WIDE, "rate_per_minute": 3})
    waiting = asyncio.create_task(edit(server, [picture_bytes(seed=seed) for seed in (1, 2)]))
    await complete(server)
    assert (await end(waiting))[0] == 200
    check_error(await edit(server, [picture_bytes()]), 429, "rate_limit_exceeded")


async def test_an_image_more_than_any_model_takes_is_not_kept(start_server: StartServer, arrived: Any) -> None:
    server = await start_server(limits=WIDE)
    paths = arrived(server)
    message = check_error(await edit(server, [picture_bytes()] * 16), 400, "invalid_value", "image")
    assert "the models here take at most 2 references" in message
    assert len(paths) == 2
    assert list_incoming(server) == []


async def test_the_limit_is_that_of_a_model_that_was_named_first(start_server: StartServer, arrived: Any) -> None:
    server = await start_server(infer={"models": ["tiny-klein", "qwen-image-edit-2511"]}, limits=WIDE)
    most = {name: profile.references for name, profile in server.services.settings.served_models.items()}
    assert most["tiny-klein"] < most["qwen-image-edit-2511"]
    paths = arrived(server)
    message = check_error(await edit(server, [picture_bytes()] * 9, model="tiny-klein"), 400, "invalid_value", "image")
    assert f"this model takes at most {most['tiny-klein']} references" in message
    assert len(paths) == most["tiny-klein"]
    paths.clear()
    check_error(await edit(server, [picture_bytes()] * 9), 400, "invalid_value", "image")
    assert len(paths) == most["qwen-image-edit-2511"]
    check_error(await edit(server, [picture_bytes()], model="gpt-5"), 404, "model_not_found", "model")
    assert len(paths) == most["qwen-image-edit-2511"]


async def test_a_disk_that_fills_up_takes_no_further_image(
    server: Server, arrived: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = arrived(server)

    def require_room() -> None:
        if paths:
            raise Unavailable("The disk is nearly full.")

    monkeypatch.setattr(server.services.disk, "require_room", require_room)
    check_error(await edit(server, [picture_bytes(seed=seed) for seed in (1, 2)]), 503, "unavailable")
    assert len(paths) == 1
    assert list_incoming(server) == []
