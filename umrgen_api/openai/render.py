"""Pictures as this API sends them: one JSON object, or server-sent events. One picture is in memory at a time."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Mapping

from umrgen_api.openai.errors import SERVER, OpenAiError
from umrgen_api.openai.order import Order
from umrgen_api.openai.pictures import Progress, output_of
from umrgen_api.render import output_url
from umrgen_api.services import Services
from umrgen_core.admission import render_progress
from umrgen_core.files import Shelf
from umrgen_core.jobs import Job, Output
from umrgen_core.logs import get_logger

LOG = get_logger("openai")
NO_TOKENS = {
    "input_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
    "output_tokens": 0,
    "total_tokens": 0,
}
"""Events must have a usage; nothing here is counted in tokens."""

PIECE_BYTES = 3 * 2**16
"""A picture is encoded in pieces of so many bytes, a multiple of 3: each holds the interpreter for a moment only."""


async def require_whole(services: Services, output: Output) -> None:
    """Raise OpenAiError unless the picture's file is what its row says."""
    whole = await asyncio.to_thread(services.verified.is_whole, Shelf.OUTPUTS, output.disk_name, output.sha256)
    if not whole:
        raise _lose(output)


def _lose(output: Output) -> OpenAiError:
    LOG.error("file_damaged", shelf=Shelf.OUTPUTS.value, disk_name=output.disk_name)
    return OpenAiError(500, "file_lost", "The picture was made, but its file is lost. Ask again.", kind=SERVER)


async def render_response(services: Services, order: Order, jobs: list[Job]) -> AsyncIterator[bytes]:
    """The answer, in pieces."""
    head = {
        "created": max(job.finished_at_us or 0 for job in jobs) // 1_000_000,
        "size": f"{jobs[0].width}x{jobs[0].height}",
        "output_format": "png",
        "background": "opaque",
        "ignored": list_ignored(order, jobs[0]),
    }
    yield _dump(head).removesuffix(b"}") + b',"data":['
    for place, job in enumerate(jobs):
        if place:
            yield b","
        for piece in await _render_picture(services, order, job):
            yield piece
    yield b"]}"


async def _render_picture(services: Services, order: Order, job: Job) -> list[bytes]:
    output, told = output_of(job), {"job_id": job.id, "seed": job.seed}
    if order.request.response_format == "url":
        return [_dump({"url": services.settings.api.public_url + output_url(output), **told})]
    return await _enclose(services, output, told)


async def render_completed(services: Services, order: Order, progress: Progress) -> AsyncIterator[bytes]:
    """The event of a finished picture, in pieces. Raises OpenAiError before the first."""
    job = progress.job
    output = output_of(job)
    await require_whole(services, output)
    data = {
        "type": f"{order.endpoint.value}.completed",
        "created_at": (job.finished_at_us or 0) // 1_000_000,
        "size": f"{job.width}x{job.height}",
        "quality": "auto",
        "background": "opaque",
        "output_format": "png",
        "usage": NO_TOKENS,
        "index": progress.place,
        "job_id": job.id,
        "seed": job.seed,
        "ignored": list_ignored(order, job),
    }
    pieces = await _enclose(services, output, data)
    yield f"event: {data['type']}\ndata: ".encode()
    for piece in pieces:
        yield piece
    yield b"\n\n"


def render_progress_event(order: Order, progress: Progress) -> bytes:
    """How far a picture is: an event for who asked for it, else a comment, which every client skips."""
    job = progress.job
    if not order.request.progress:
        return f": {job.id} {job.state.value} {job.step}/{job.steps}\n\n".encode()
    return render_event(
        {
            "type": f"{order.endpoint.value}.progress",
            "index": progress.place,
            "job_id": job.id,
            "state": job.state.value,
            **render_progress(job.step, job.steps),
        }
    )


def render_event(data: Mapping[str, object]) -> bytes:
    """One server-sent event; its name is the type of its data."""
    return f"event: {data['type']}\n".encode() + b"data: " + _dump(data) + b"\n\n"


def list_ignored(order: Order, job: Job) -> list[str]:
    """What of the request had no effect, by this API's names."""
    return [*order.ignored, *("negative_prompt" if name == "negative" else name for name in job.ignored)]


async def _enclose(services: Services, output: Output, data: Mapping[str, object]) -> list[bytes]:
    """The JSON of `data` with the picture as `b64_json`, in pieces. Base64 needs no escaping."""

    def enclose() -> list[bytes]:
        picture = memoryview(services.files.read(Shelf.OUTPUTS, output.disk_name))
        encoded = (base64.b64encode(picture[at : at + PIECE_BYTES]) for at in range(0, len(picture), PIECE_BYTES))
        return [b'{"b64_json":"', *encoded, b'",' + _dump(data).removeprefix(b"{")]

    try:
        return await asyncio.to_thread(enclose)
    except OSError:
        raise _lose(output) from None


def _dump(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
