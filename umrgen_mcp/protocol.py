"""Connections whose clients take too long to say what they want are closed: only so many are served at once."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import h11
from starlette.datastructures import Headers
from uvicorn.protocols.http.h11_impl import H11Protocol

from umrgen_mcp.server import is_small

HEAD_TIMEOUT_S = 15.0
"""For a request head, a small body, and what is left of a body that has been answered already."""
BODY_TIMEOUT_S = 120.0
"""For a large body, which the gate lets in for known keys only: the largest at 1 Mbit/s."""
UNREAD_TIMEOUT_S = 60.0
"""A client that acknowledges nothing of an answer for this long is cut off, by the kernel."""


class Protocol(H11Protocol):
    """A connection with a time limit for each head and each body. Answers may take as long as they do."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for the first head."""
        super().connection_made(transport)  # type: ignore[arg-type]
        _limit_unread(transport)
        self._awaited: tuple[Any, ...] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Some of a head or a body, or the end of one."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """An answer is out: the next head is awaited, or the rest of a body that nobody reads."""
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._stop_timer()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """Start the clock anew when something else is awaited; more of the same does not win time."""
        state, answered = self.conn.their_state, self.cycle is not None and self.cycle.response_complete
        awaited = (state, self.cycle, answered) if state in (h11.IDLE, h11.SEND_BODY) else None
        if awaited == self._awaited:
            return
        self._awaited = awaited
        self._stop_timer()
        if awaited is not None:
            large = state is h11.SEND_BODY and not answered and not is_small(Headers(raw=self.headers))
            seconds = BODY_TIMEOUT_S if large else HEAD_TIMEOUT_S
            self._timer = self.loop.call_later(seconds, self.transport.abort)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _limit_unread(transport: asyncio.BaseTransport) -> None:
    connection = transport.get_extra_info("socket")
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(UNREAD_TIMEOUT_S * 1000))
