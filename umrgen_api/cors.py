"""Which pages in a browser may call the API: those that the owner names, and none by default.

Keys are sent in a header that a page sets itself, never in a cookie, so no credentials are ever allowed.
The protocol is the CORS part of the Fetch standard (https://fetch.spec.whatwg.org/#http-cors-protocol).
"""

from __future__ import annotations

import re

from aiohttp import hdrs, web

from umrgen_api.access import Handler
from umrgen_api.console.errors import is_console_path
from umrgen_api.services import services_of

METHODS = "GET, HEAD, POST, DELETE"
REQUEST_HEADERS = (
    "Authorization, Content-Type, Idempotency-Key, If-None-Match, Last-Event-ID, Prefer, Range, X-Request-ID"
)
RESPONSE_HEADERS = "Content-Disposition, ETag, Idempotent-Replayed, Location, Retry-After, X-Request-ID"
PREFLIGHT_AGE_S = 600
_HEADER_NAMES = re.compile(r"[A-Za-z0-9_-]+(?:, ?[A-Za-z0-9_-]+){0,63}")


@web.middleware
async def answer_preflights(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Tell a browser beforehand what a page may send; no key is needed, and nothing about what exists is told."""
    asks = request.method == "OPTIONS" and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers
    if not asks or _allowed_origin(request) is None:
        return await handler(request)
    return web.Response(
        status=204,
        headers={
            hdrs.ACCESS_CONTROL_ALLOW_METHODS: METHODS,
            hdrs.ACCESS_CONTROL_ALLOW_HEADERS: _allowed_headers(request),
            hdrs.ACCESS_CONTROL_MAX_AGE: str(PREFLIGHT_AGE_S),
        },
    )


def _allowed_headers(request: web.Request) -> str:
    """What the page asks for: libraries send headers of their own, and none of them does any harm here."""
    asked = request.headers.get(hdrs.ACCESS_CONTROL_REQUEST_HEADERS, "")
    return f"{REQUEST_HEADERS}, {asked}" if _HEADER_NAMES.fullmatch(asked) else REQUEST_HEADERS


async def allow_origin(request: web.Request, response: web.StreamResponse) -> None:
    """Signal before any response leaves: let the page that asked read it, where its origin is allowed."""
    if services_of(request).settings.api.cors_origins:
        response.headers.add(hdrs.VARY, hdrs.ORIGIN)
    origin = _allowed_origin(request)
    if origin is not None:
        response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
        response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = RESPONSE_HEADERS


def _allowed_origin(request: web.Request) -> str | None:
    if is_console_path(request.path):  # its pages are this server's own
        return None
    origin = request.headers.get(hdrs.ORIGIN)
    origins = services_of(request).settings.api.cors_origins
    return origin if origin is not None and (origin in origins or "*" in origins) else None
