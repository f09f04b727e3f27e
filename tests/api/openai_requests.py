"""Requests for pictures in the manner of the OpenAI API, and the worker that the tests play."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp

from tests.api.conftest import Server
from tests.api.test_status import MODEL, complete_next
from umrgen_core.jobs import Claim

GENERATIONS = "/v1/images/generations"
EDITS = "/v1/images/edits"
DEADLINE_S = 10.0
WIDE = {"concurrent_jobs": 20, "rate_per_minute": 1000, "reads_per_minute": 10_000}

Answer = tuple[int, Any, dict[str, str]]


def begin(server: Server, headers: dict[str, str] | None = None, **fields: Any) -> asyncio.Task[Answer]:
    """A request for pictures that is under way."""
    body = {"prompt": "a red circle", **fields}
    return asyncio.create_task(server.call("POST", GENERATIONS, json=body, headers=headers))


async def end(task: asyncio.Task[Answer]) -> Answer:
    return await asyncio.wait_for(task, DEADLINE_S)


async def list_jobs(server: Server) -> list[dict[str, Any]]:
    """The agent's jobs, oldest first."""
    jobs: list[dict[str, Any]] = (await server.call("GET", "/api/v1/jobs?limit=100"))[1]["jobs"]
    return jobs[::-1]


async def wait_for_jobs(server: Server, most: int) -> list[dict[str, Any]]:
    """Until so many jobs have been accepted."""
    async with asyncio.timeout(DEADLINE_S):
        while len(jobs := await list_jobs(server)) < most:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.005)
    return jobs


async def complete(server: Server, place: int = 1) -> None:
    """Play the worker for the job that is accepted as number `place`."""
    job_id = (await wait_for_jobs(server, place))[place - 1]["job_id"]
    await complete_next(server)
    server.services.changes.notify(job_id)


async def claim_soon(server: Server) -> Claim:
    """Take the next job as soon as there is one."""
    async with asyncio.timeout(DEADLINE_S):
        while (claimed := await server.services.claims.claim_next(MODEL, "worker-1")) is None:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    return claimed


async def fail_next(server: Server, error_code: str = "model_error", *, retryable: bool = False) -> None:
    claimed = await claim_soon(server)
    await server.services.claims.fail(claimed, error_code, "A sentence.", retryable=retryable)
    server.services.changes.notify(claimed.job_id)


async def edit(server: Server, images: list[bytes], name: str = "image[]", **fields: str) -> Answer:
    form = aiohttp.FormData(default_to_multipart=True)
    for key, value in {"prompt": "the same in blue", **fields}.items():
        form.add_field(key, value)
    for number, image in enumerate(images):
        form.add_field(name, image, filename=f"{number}.png", content_type="image/png")
    return await server.call("POST", EDITS, data=form)


def check_error(answer: Answer, status: int, code: str, param: str | None = None) -> str:
    """Hold an answer to the API's error shape; its message."""
    got, body, headers = answer
    assert got == status, body
    error = body.pop("error")
    assert body == {}
    assert set(error) - {"moderation_details"} == {"message", "type", "param", "code"}
    assert (error["code"], error["param"]) == (code, param)
    assert headers["X-Request-ID"]
    assert headers["Cache-Control"] == "no-store"
    message: str = error["message"]
    return message
