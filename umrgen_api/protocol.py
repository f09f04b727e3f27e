"""Requests that are not even HTTP get the contract's errors too.

aiohttp answers what its parser refuses before any application code runs; this is the one place where
that answer can be changed.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from umrgen_api.errors import INTERNAL, error_response
from umrgen_api.middleware import REQUEST_ID_HEADER, SECURITY_HEADERS, SERVER_NAME, choose_request_id
from umrgen_core.errors import FieldProblem, InvalidRequest
from umrgen_core.logs import get_logger

LOG = get_logger("http")


class _Handler(RequestHandler):
    """A connection."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - aiohttp's signature
    ) -> web.StreamResponse:
        """Answer what the parser refused, or what no middleware caught."""
        known = status < 500
        if not known:
            LOG.error("internal_error", exc_info=exc)
        problem = FieldProblem("request", "is not valid HTTP; check the request line, the headers and their sizes")
        response = error_response(
            InvalidRequest([problem]) if known else INTERNAL, {REQUEST_ID_HEADER: choose_request_id(request)}
        )
        response.headers.update(SECURITY_HEADERS)
        response.headers["Server"] = SERVER_NAME
        response.force_close()
        return response


class _Server(web.Server):
    """aiohttp's server, making our connections."""

    def __call__(self) -> RequestHandler:
        return _Handler(self, loop=self._loop, **self._kwargs)


class Runner(web.AppRunner):
    """Runs the application with the handler above."""

    async def _make_server(self) -> web.Server:
        # No body is ever decompressed: the parser itself would refuse some encodings with an answer of its own.
        self._kwargs["auto_decompress"] = False
        server: Any = await super()._make_server()
        server.__class__ = _Server
        return server  # type: ignore[no-any-return]
