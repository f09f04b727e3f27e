"""Requests, answers and retries without any input or output.

A *flow* is a generator: it yields what is to be done (send a request, pause, tell of a job) and is sent the answer.
The two clients differ only in how they do these three things.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from umrgen_client.errors import BY_CODE, BadAnswer, Refused, UmrgenError, Unreachable
from umrgen_client.records import Json

T = TypeVar("T")
FIRST_BACK_OFF_S = 0.25
MAX_BACK_OFF_S = 5.0
_PASSING = (502, 503, 504)
"""What a proxy answers while the service behind it starts again."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `repeatable` says that a second one does no harm when the fate of the first is unknown."""

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    json: Json | None = None
    file: tuple[str, bytes] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    wait_s: float = 0.0
    repeatable: bool = True


@dataclass(frozen=True, slots=True)
class Response:
    """An answer, read whole. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Pause:
    """Do nothing for so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Tell:
    """Show the caller how a job stands."""

    status: Json


Step = Request | Pause | Tell
Flow = Generator[Step, Response | None, T]


@dataclass(frozen=True, slots=True)
class Done(Generic[T]):
    """A flow has returned."""

    value: T


def advance(flow: Flow[T], answer: Response | None = None, error: UmrgenError | None = None) -> Step | Done[T]:
    """Send the answer of the last step, or throw what it raised; the next step."""
    try:
        return flow.send(answer) if error is None else flow.throw(error)
    except StopIteration as end:
        return Done(end.value)


@dataclass(frozen=True, slots=True)
class Retry:
    """How long a call is repeated. Both are sums of the pauses between its requests, in seconds."""

    patience_s: float = 60.0
    """With a service that says when to come back: it has other work, or the agent has its limit of jobs."""
    outage_s: float = 15.0
    """With one that does not answer."""
    draw: Callable[[], float] = random.random
    """From 0 to 1: spreads clients that lost the same service."""

    def find_pause(self, error: UmrgenError, request: Request, attempt: int, paused_s: float) -> float | None:
        """Seconds before the request is sent again, or None when it is not. `attempt` counts from 1."""
        silent = isinstance(error, Unreachable) or (isinstance(error, Refused) and error.status in _PASSING)
        unknown = silent or (isinstance(error, Refused) and error.status >= 500)
        if (error.retry_after is None and not silent) or (unknown and not request.repeatable):
            return None
        back_off_s = min(FIRST_BACK_OFF_S * 2.0 ** min(attempt - 1, 10), MAX_BACK_OFF_S) * (0.5 + self.draw() / 2)
        pause_s = max(back_off_s, error.retry_after or 0.0)
        limit_s = self.outage_s if error.retry_after is None else self.patience_s
        return None if paused_s + pause_s > limit_s else pause_s


def ask(request: Request, retry: Retry) -> Flow[Response]:
    """Send until it succeeds. Raises Refused or Unreachable when it is not to be repeated."""
    attempt, paused_s = 0, 0.0
    while True:
        attempt += 1
        error: UmrgenError
        try:
            response = yield request
            assert response is not None  # noqa: S101 - what a client sends back for a request
            if response.status < 400:
                return response
            error = read_refusal(response)
        except Unreachable as unreachable:
            error = unreachable
        pause_s = retry.find_pause(error, request, attempt, paused_s)
        if pause_s is None:
            raise error
        paused_s += pause_s
        yield Pause(pause_s)


def read_refusal(response: Response) -> Refused:
    """The error of an answer of 400 and above, also when a proxy gave it."""
    try:
        details = read_json(response)
    except BadAnswer:
        details = {"code": "unknown", "message": f"Something between you and the service answered {response.status}."}
    known = BY_CODE.get(str(details.get("code")), Refused)
    retry_after = details.get("retry_after")
    header = response.headers.get("retry-after", "")
    if not isinstance(retry_after, int | float):
        retry_after = float(header) if header.isascii() and header.isdigit() else None
    return known(response.status, details, response.headers.get("x-request-id", ""), retry_after)


def read_json(response: Response) -> dict[str, Any]:
    """The object in an answer. Raises BadAnswer when there is none."""
    try:
        body = json.loads(response.body)
    except ValueError:
        body = None
    if not isinstance(body, dict) or "success" not in body:
        raise BadAnswer("This address answers, but not as UMRGEN does; look at the URL.")
    return body
