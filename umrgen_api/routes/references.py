"""POST /api/v1/upload-reference, GET and DELETE /api/v1/references."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path

from aiohttp import web

from umrgen_api.access import agent_of, needs
from umrgen_api.errors import json_response
from umrgen_api.intake import Upload, receive_upload
from umrgen_api.rates import Rate
from umrgen_api.render import render_reference
from umrgen_api.services import Services, services_of
from umrgen_core.agents import Agent, Scope
from umrgen_core.errors import RequestError
from umrgen_core.files import Shelf
from umrgen_core.jobs import Reference
from umrgen_core.names import new_disk_name, new_reference_filename
from umrgen_core.reference_store import NewReference


@needs(Scope.UPLOAD, Rate.WRITE)
async def upload_reference(request: web.Request) -> web.Response:
    """Keep an image to generate with."""
    services, agent = services_of(request), agent_of(request)
    await asyncio.to_thread(services.disk.require_room)
    with services.files.incoming() as (source, source_path):
        upload = await receive_upload(request, source)
        reference = await keep_image(services, agent, source_path, upload)
    return json_response({"success": True, **render_reference(reference)})


async def keep_image(services: Services, agent: Agent, source: Path, upload: Upload) -> Reference:
    """Make an upload at `source` a reference; the same bytes again renew the earlier one.

    Raises InvalidImage or QuotaExceeded.
    """
    earlier = await services.references.find_upload(agent.id, upload.sha256)
    if earlier is not None and await _is_kept(services, earlier):
        reference = await services.references.renew(earlier)
        if reference is not None:
            return reference
    with ExitStack() as stack:
        new = await _sanitise(services, stack, source, upload)
    return await _keep(services, agent, new, None if earlier is None else earlier.disk_name)


async def _is_kept(services: Services, earlier: Reference) -> bool:
    """Whether the file of an earlier upload of the same bytes is still there, whole."""
    return await asyncio.to_thread(services.verified.is_whole, Shelf.REFERENCES, earlier.disk_name, earlier.sha256)


async def _sanitise(services: Services, stack: ExitStack, source: Path, upload: Upload) -> NewReference:
    """Publish a clean re-encode of `source`."""
    _, clean_path = stack.enter_context(services.files.incoming())
    image = await services.sanitiser.sanitise(source, clean_path)
    disk_name = new_disk_name(image.extension)
    published = await asyncio.to_thread(services.files.publish, Shelf.REFERENCES, disk_name, clean_path)
    return NewReference(
        filename=new_reference_filename(services.clock.wall_us(), image.extension),
        disk_name=disk_name,
        format=image.format,
        width=image.width,
        height=image.height,
        bytes=published.bytes,
        sha256=published.sha256,
        source_sha256=upload.sha256,
        source_width=image.source_width,
        source_height=image.source_height,
        source_bytes=upload.bytes,
        source_format=image.format,
    )


async def _keep(services: Services, agent: Agent, new: NewReference, lost: str | None) -> Reference:
    """Give the published file its row; unlink it when it is known not to be needed."""
    try:
        kept = await services.references.put(agent, new, lost)
    except RequestError:
        await asyncio.to_thread(services.files.delete, Shelf.REFERENCES, new.disk_name)
        raise
    if kept.disk_name != new.disk_name:
        await asyncio.to_thread(services.files.delete, Shelf.REFERENCES, new.disk_name)
    return kept


@needs(Scope.READ, Rate.READ)
async def list_references(request: web.Request) -> web.Response:
    """The agent's own references, newest first."""
    references = await services_of(request).references.list_live(agent_of(request).id)
    return json_response({"success": True, "references": [render_reference(r) for r in references]})


@needs(Scope.UPLOAD, Rate.READ)
async def delete_reference(request: web.Request) -> web.Response:
    """Delete one that no queued or running job names."""
    services, filename = services_of(request), request.match_info["filename"]
    disk_name = await services.references.delete(agent_of(request), filename)
    await asyncio.to_thread(services.files.delete, Shelf.REFERENCES, disk_name)
    return json_response({"success": True, "filename": filename, "message": "Reference deleted"})
