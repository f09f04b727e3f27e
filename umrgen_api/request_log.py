"""One log line and one count for each request, made when the answers of a round of the event loop are on their way.

Clients wait for none of it, and what is made together finds its code in the processor's caches.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from umrgen_api.metrics import WebMetrics
from umrgen_core.logs import get_logger

LOG = get_logger("http")


@dataclass(frozen=True, slots=True)
class Answered:
    """What is told of a request. `route` is a template, never a path, which may be a file's URL."""

    route: str | None
    method: str
    status: int
    agent: str | None
    duration_s: float
    error_code: str | None
    waited: bool
    """Whether it asked to wait, which says nothing of how fast the server is."""


class RequestLog:
    """Takes what the requests of a round came to."""

    def __init__(self, metrics: WebMetrics) -> None:
        self._metrics = metrics

    def note(self, answered: Answered) -> None:
        """Log and count it at the end of this round, with whatever is bound to log lines now."""
        asyncio.get_running_loop().call_soon(self._tell, answered)

    def _tell(self, answered: Answered) -> None:
        LOG.info(
            "request",
            method=answered.method,
            route=answered.route,
            status=answered.status,
            agent=answered.agent,
            duration_s=round(answered.duration_s, 6),
        )
        self._metrics.note_answer(
            answered.route,
            answered.method,
            answered.status,
            answered.duration_s,
            answered.error_code,
            waited=answered.waited,
        )
