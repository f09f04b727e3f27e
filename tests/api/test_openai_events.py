"""The events of the OpenAI API."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from tests.api.conftest import Server
from tests.api.openai_requests import DEADLINE_S, GENERATIONS, begin, check_error, claim_soon, complete, end
from tests.conftest import picture_bytes


class Stream:
    """The events of one request as they come; a comment has the empty name."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._content = response.content

    async def read(self) -> tuple[str, Any]:
        async with asyncio.timeout(DEADLINE_S):
            block = (await self._content.readuntil(b"\n\n")).decode().removesuffix("\n\n")
        if block.startswith(":"):
            return "", block[2:]
        name, data = block.split("\n")
        return name.removeprefix("event: "), json.loads(data.removeprefix("data: "))

    async def read_picture(self) -> tuple[str, Any]:
        """The next event that is no comment; a poll may tell of what lies between."""
        while not (event := await self.read())[0]:
            pass
        return event

    async def read_rest(self) -> bytes:
        return await asyncio.wait_for(self._content.read(), DEADLINE_S)


@asynccontextmanager
async def stream(server: Server, **fields: Any) -> AsyncIterator[Stream]:
    body = {"prompt": "a red circle", "stream": True, **fields}
    async with server.session.post(GENERATIONS, json=body) as response:
        assert response.status == 200
        assert response.content_type == "text/event-stream"
        yield Stream(response)


async def test_a_stream_ends_with_the_picture_and_tells_progress_in_comments(server: Server) -> None:
    async with stream(server, partial_images=2) as heard:
        name, comment = await heard.read()
        assert (name, comment.endswith("queued 0/4")) == ("", True)
        await complete(server)
        name, data = await heard.read_picture()
        assert await heard.read_rest() == b""
    assert name == data["type"] == "image_generation.completed"
    assert base64.b64decode(data["b64_json"]) == picture_bytes()
    assert data["ignored"] == ["partial_images"]
    assert {"created_at", "size", "quality", "background", "output_format", "usage"} <= set(data)


async def test_every_picture_of_a_stream_is_an_event_of_its_own(server: Server) -> None:
    async with stream(server, n=2) as heard:
        for place in (0, 1):
            assert (await heard.read())[0] == ""
            await complete(server, place + 1)
            name, data = await heard.read_picture()
            assert (name, data["index"]) == ("image_generation.completed", place)
        assert await heard.read_rest() == b""


async def test_progress_comes_as_events_where_it_is_asked_for(server: Server) -> None:
    async with stream(server, progress=True) as heard:
        name, data = await heard.read()
        assert name == data["type"] == "image_generation.progress"
        assert (data["state"], data["step"], data["steps"], data["fraction"]) == ("queued", 0, 4, 0.0)
        claimed = await claim_soon(server)
        await server.services.claims.put_progress(claimed, 3)
        server.services.changes.notify(claimed.job_id)
        while (data := (await heard.read())[1])["step"] == 0:
            pass
        assert (data["state"], data["step"], data["fraction"]) == ("running", 3, 0.75)
        await server.services.claims.fail(claimed, "model_error", "Broken.", retryable=False)
        server.services.changes.notify(claimed.job_id)
        while (event := await heard.read())[0] != "error":
            assert event[1]["step"] == 3  # a poll and a hint may tell the same twice
        assert event[1]["error"]["code"] == "model_error"
        assert await heard.read_rest() == b""


async def test_a_stream_that_cannot_begin_is_refused_as_any_request(server: Server) -> None:
    await server.generate()
    check_error(await end(begin(server, stream=True)), 429, "rate_limit_exceeded")
    check_error(await end(begin(server, stream=True, size="x")), 400, "invalid_value", "size")
