"""Requests that are not even HTTP get the contract's errors too.

aiohttp answers what its parser refuses before any application code runs; this is the one place where
that answer can be changed.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from umrgen_api.errors import INTERNAL, error_response
from umrgen_api.middleware import REQUEST_ID_HEADER, SECURITY_HEADERS, SERVER_NAME, choose_request_id
from umrgen_core.errors import FieldProblem, InvalidRequest
from umrgen_core.logs import get_logger

LOG = get_logger("http")
HEAD_TIMEOUT_S = 15.0
DRAIN_POLL_S = 0.01
UNREAD_TIMEOUT_S = 60.0
"""A client that acknowledges nothing of an answer for this long is cut off, by the kernel."""


class _Handler(RequestHandler):
    """A connection. One that has sent no whole request head in time is closed: sockets are not free."""

    __slots__ = ("_first_close_time", "_head_timer")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for the first request head; later ones fall under the keep-alive timeout."""
        super().connection_made(transport)
        _limit_unread(transport)
        self._first_close_time = self._next_keepalive_close_time  # moved on by each answer
        self._head_timer = self._loop.call_later(HEAD_TIMEOUT_S, self._close_silent)

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection is gone."""
        self._head_timer.cancel()
        super().connection_lost(exc)

    def _close_silent(self) -> None:
        answered = self._next_keepalive_close_time != self._first_close_time
        if not answered and not self._request_in_progress and self.transport is not None:
            self.transport.close()

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


def _limit_unread(transport: asyncio.BaseTransport) -> None:
    connection = transport.get_extra_info("socket")
    if connection is not None and connection.family in (socket.AF_INET, socket.AF_INET6):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(UNREAD_TIMEOUT_S * 1000))


class _Server(web.Server):
    """aiohttp's server, making our connections."""

    def __call__(self) -> RequestHandler:
        return _Handler(self, loop=self._loop, **self._kwargs)


class Runner(web.AppRunner):
    """Runs the application with the handler above."""

    def __init__(self, app: web.Application, **options: Any) -> None:
        super().__init__(app, **options)
        self._draining = False
        app.on_response_prepare.append(self._end_connection)

    async def drain(self, linger_s: float) -> None:
        """Take no more connections, and let those that are open bring one more request each, answered as the last.

        A client that goes on asking is so told in time to connect anew; who stays silent for `linger_s` is cut off.
        """
        self._draining = True
        loop = asyncio.get_running_loop()
        servers: list[Any] = [site._server for site in self.sites]  # noqa: SLF001 - aiohttp shows none of it
        for listening in [one for server in servers for one in server.sockets]:
            loop.remove_reader(listening)
        # asyncio drops a connection that it has taken but not yet handed over when its server closes.
        await asyncio.sleep(DRAIN_POLL_S)
        for site in list(self.sites):
            await site.stop()
        end_s = loop.time() + linger_s
        while self.server is not None and self.server.connections and loop.time() < end_s:  # noqa: ASYNC110 - they tell nobody
            await asyncio.sleep(DRAIN_POLL_S)

    async def _end_connection(self, _: web.Request, response: web.StreamResponse) -> None:
        if self._draining:
            response.force_close()
            response.headers["Connection"] = "close"

    async def _make_server(self) -> web.Server:
        # No body is ever decompressed: the parser itself would refuse some encodings with an answer of its own.
        self._kwargs["auto_decompress"] = False
        server: Any = await super()._make_server()
        server.__class__ = _Server
        return server  # type: ignore[no-any-return]
