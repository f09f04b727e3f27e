"""POST /v1/images/generations and /v1/images/edits, GET /v1/models and /v1/models/{model}."""

from __future__ import annotations

import json
from contextlib import ExitStack, suppress
from pathlib import Path

from aiohttp import hdrs, web

from umrgen_api.access import agent_of, needs
from umrgen_api.body import read_json
from umrgen_api.errors import json_response
from umrgen_api.intake import Upload
from umrgen_api.middleware import CLIENT_GONE
from umrgen_api.openai.errors import OpenAiError, describe_error
from umrgen_api.openai.forms import receive_form
from umrgen_api.openai.names import find_model
from umrgen_api.openai.order import Endpoint, Order, read_order
from umrgen_api.openai.pictures import Pictures, output_of
from umrgen_api.openai.render import (
    render_completed,
    render_progress_event,
    render_response,
    require_whole,
)
from umrgen_api.rates import Rate
from umrgen_api.routes.references import keep_image
from umrgen_api.services import services_of
from umrgen_api.submission import read_idempotency_key
from umrgen_core.agents import Scope
from umrgen_core.errors import Forbidden, InvalidImage, UmrgenError


@needs(Scope.GENERATE, Rate.WRITE)
async def generate_images(request: web.Request) -> web.StreamResponse:
    """Pictures from a prompt. Answers when they are there."""
    _require_scopes(request, Scope.READ)
    fields = await read_json(request)
    order = read_order(Endpoint.GENERATION, fields, services_of(request).settings, {})
    return await _fulfil(request, order, [])


@needs(Scope.GENERATE, Rate.WRITE)
async def edit_images(request: web.Request) -> web.StreamResponse:
    """Pictures from a prompt and images, which become references of the agent's."""
    _require_scopes(request, Scope.READ, Scope.UPLOAD)
    settings = services_of(request).settings
    with ExitStack() as stack:
        form = await receive_form(request, stack)
        identity = {"image": [upload.sha256 for _, upload in form.images]}
        order = read_order(Endpoint.EDIT, form.fields, settings, identity)
        return await _fulfil(request, order, form.images, stack)


async def _fulfil(
    request: web.Request, order: Order, images: list[tuple[Path, Upload]], incoming: ExitStack | None = None
) -> web.StreamResponse:
    services, agent, key = services_of(request), agent_of(request), read_idempotency_key(request)
    for _ in range(order.request.n - 1):  # each counts as its own request would; one and the images have been counted
        services.rates.take(agent, Rate.WRITE)

    async def keep_images() -> list[str]:
        return [await _keep(request, place, *image) for place, image in enumerate(images)]

    with services.changes.watch(agent.id, "") as watch:
        pictures = Pictures(request, order, key, watch)
        await pictures.begin(len(images), keep_images)
        if incoming is not None:
            incoming.close()  # nobody needs what came in while the jobs run
        return await (_stream if order.request.stream else _answer)(request, order, pictures)


async def _keep(request: web.Request, place: int, source: Path, upload: Upload) -> str:
    try:
        return (await keep_image(services_of(request), agent_of(request), source, upload)).filename
    except InvalidImage as error:
        raise InvalidImage(f"image {place + 1}: {error.extra['reason']}") from None


async def _answer(request: web.Request, order: Order, pictures: Pictures) -> web.StreamResponse:
    services = services_of(request)
    try:
        jobs = [progress.job async for progress in pictures.follow() if progress.job.state.ended]
    except ConnectionError:
        return web.Response(status=CLIENT_GONE)
    for job in jobs:
        await require_whole(services, output_of(job))
    response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: "application/json; charset=utf-8"})
    await response.prepare(request)
    try:
        async for piece in render_response(services, order, jobs):
            await response.write(piece)
    except ConnectionError:
        pass  # the client has gone
    except OpenAiError:  # too late for another answer: at least this one is not taken for whole
        if request.transport is not None:
            request.transport.abort()
    return response


async def _stream(request: web.Request, order: Order, pictures: Pictures) -> web.StreamResponse:
    stream = web.StreamResponse(headers={hdrs.CONTENT_TYPE: "text/event-stream", "X-Accel-Buffering": "no"})
    await stream.prepare(request)
    with suppress(ConnectionError):  # the client has gone; its jobs go on
        try:
            async for progress in pictures.follow():
                if progress.job.state.ended:
                    async for piece in render_completed(services_of(request), order, progress):
                        await stream.write(piece)
                else:
                    await stream.write(render_progress_event(order, progress))
        except UmrgenError as error:
            data = json.dumps({"type": "error", "error": describe_error(error)}, ensure_ascii=False)
            await stream.write(f"event: error\ndata: {data}\n\n".encode())
    return stream


def _require_scopes(request: web.Request, *scopes: Scope) -> None:
    """Besides the one to generate: the answer holds what the status would, and images are uploads."""
    lacking = [scope.value for scope in scopes if scope not in agent_of(request).scopes]
    if lacking:
        raise Forbidden(f"Your key lacks the scope '{lacking[0]}'. Ask the owner for one that has it.")


@needs(Scope.READ, Rate.READ)
async def list_models(request: web.Request) -> web.Response:
    """The models that requests may name, the default first."""
    served = services_of(request).settings.served_models
    return json_response({"object": "list", "data": [_render_model(name) for name in served]})


@needs(Scope.READ, Rate.READ)
async def get_model(request: web.Request) -> web.Response:
    """One model, or the one that a name of OpenAI's stands for."""
    served = services_of(request).settings.served_models
    return json_response(_render_model(find_model(request.match_info["model"], served)))


def _render_model(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "umrgen"}
