"""Pictures for who is signed in: their own, found by name, without a secret in the URL."""

from __future__ import annotations

from aiohttp import hdrs, web

from umrgen_api.console.gate import picture, session_of
from umrgen_api.routes.files import serve_file
from umrgen_api.services import services_of
from umrgen_core.files import Shelf

KEPT_BY_BROWSERS = "private, no-cache"
"""Kept, but asked for again each time: after sign-out nothing is shown from the cache."""


@picture
async def get_reference(request: web.Request) -> web.StreamResponse:
    """An own upload."""
    record = await services_of(request).references.find(request.match_info["filename"])
    session_id = session_of(request).agent.session_id
    return _own(await serve_file(request, Shelf.REFERENCES, record, record.format if record else "", session_id))


@picture
async def get_output(request: web.Request) -> web.StreamResponse:
    """An own picture; `?download` saves it."""
    record = await services_of(request).references.find_output(request.match_info["filename"])
    response = await serve_file(request, Shelf.OUTPUTS, record, "png", session_of(request).agent.session_id)
    if "download" in request.query:
        disposition = response.headers[hdrs.CONTENT_DISPOSITION]
        response.headers[hdrs.CONTENT_DISPOSITION] = disposition.replace("inline", "attachment", 1)
    return _own(response)


def _own(response: web.FileResponse) -> web.FileResponse:
    response.headers[hdrs.CACHE_CONTROL] = KEPT_BY_BROWSERS
    return response
