"""GET and HEAD of references and outputs: the file name is the secret, or a key that owns the session."""

from __future__ import annotations

import asyncio
import hmac
from pathlib import Path

from aiohttp import hdrs, web

from umrgen_api.access import find_agent
from umrgen_api.services import services_of
from umrgen_core.errors import Forbidden, NotFound, RangeNotSatisfiable
from umrgen_core.files import Shelf
from umrgen_core.jobs import Output, Reference
from umrgen_core.logs import get_logger

LOG = get_logger("files")
_CONTENT_TYPES = {"jpeg": "image/jpeg", "png": "image/png", "webp": "image/webp"}


async def get_reference(request: web.Request) -> web.StreamResponse:
    """A sanitised upload."""
    await _admit(request)
    reference = await services_of(request).references.find(request.match_info["filename"])
    session_id = request.match_info["session_id"]
    return await serve_file(request, Shelf.REFERENCES, reference, reference.format if reference else "", session_id)


async def get_output(request: web.Request) -> web.StreamResponse:
    """A finished picture."""
    await _admit(request)
    output = await services_of(request).references.find_output(request.match_info["filename"])
    return await serve_file(request, Shelf.OUTPUTS, output, "png", request.match_info["session_id"])


async def _admit(request: web.Request) -> None:
    """Decide before any look-up of the file. Raises Forbidden."""
    session = request.match_info["session_id"].encode("utf-8", "surrogateescape")
    files = services_of(request).settings.files
    given = request.query.get("session_id", "").encode("utf-8", "surrogateescape")
    if not files.require_key and hmac.compare_digest(given, session):
        return
    agent = await find_agent(request)
    if agent is not None and agent.session_id.encode() == session:
        return
    raise Forbidden("Use the URL as it was given, with its session_id, or send the key of its owner.")


async def serve_file(
    request: web.Request, shelf: Shelf, record: Reference | Output | None, image_format: str, session_id: str
) -> web.FileResponse:
    """The file of a record that belongs to the session. Raises NotFound or RangeNotSatisfiable."""
    services = services_of(request)
    missing = NotFound("There is no such file; it may have expired.")
    if record is None or record.session_id != session_id:
        raise missing
    if not await asyncio.to_thread(services.verified.is_whole, shelf, record.disk_name, record.sha256):
        LOG.error("file_damaged", shelf=shelf.value, disk_name=record.disk_name)
        raise missing
    _refuse_impossible_range(request, record.bytes)
    path = services.files.path(shelf, record.disk_name)
    rest_s = max(0, (record.expires_at_us - services.clock.wall_us()) // 1_000_000)
    return _file_response(path, record, image_format, rest_s)


def _refuse_impossible_range(request: web.Request, size: int) -> None:
    try:
        start = request.http_range.start
    except ValueError:
        start = size
    if start is not None and start >= size:
        raise RangeNotSatisfiable(
            f"The file has {size} bytes; ask for a part of those, such as 'Range: bytes=0-1023'.", extra={"bytes": size}
        )


def _file_response(path: Path, record: Reference | Output, image_format: str, max_age_s: int) -> web.FileResponse:
    return web.FileResponse(
        path,
        headers={
            hdrs.CONTENT_TYPE: _CONTENT_TYPES[image_format],
            hdrs.CONTENT_DISPOSITION: f'inline; filename="{record.filename}"',
            hdrs.CACHE_CONTROL: f"private, max-age={max_age_s}",
            "Content-Security-Policy": "default-src 'none'; sandbox",
        },
    )
