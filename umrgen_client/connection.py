"""Where the service is, who asks, and how a Request becomes one of httpx2's."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx2

from umrgen_client.errors import BadAnswer, NotConfigured, Unreachable
from umrgen_client.exchange import Request, Response

URL_VARIABLE = "UMRGEN_URL"
KEY_VARIABLE = "UMRGEN_API_KEY"
CONNECT_S = 10.0
ANSWER_S = 60.0
"""An upload may wait for its turn to be decoded; a wait that the request asks for comes on top."""
QUIET_S = 45.0
"""An event stream says something every 15 s."""


@dataclass(frozen=True, slots=True)
class Address:
    """Base URL without a slash at its end, and the headers of every request."""

    url: str
    headers: dict[str, str]


def find_address(url: str | None, api_key: str | None, headers: Mapping[str, str] | None = None) -> Address:
    """From the arguments, else from the environment. Raises NotConfigured."""
    url = url or os.environ.get(URL_VARIABLE, "")
    api_key = api_key or os.environ.get(KEY_VARIABLE, "")
    if not url.startswith(("http://", "https://")):
        raise NotConfigured("not_configured", f"Give the URL of the service, or set {URL_VARIABLE}: http://HOST:3088")
    if not api_key:
        raise NotConfigured("not_configured", f"Give an API key, or set {KEY_VARIABLE}.")
    if not api_key.isascii() or not api_key.isprintable() or " " in api_key:
        raise NotConfigured("not_configured", "An API key has visible ASCII characters only; this one has others.")
    own = {"User-Agent": "umrgen-client", **(headers or {}), "Authorization": f"Bearer {api_key}"}
    return Address(url.rstrip("/"), own)


def arguments_of(address: Address, request: Request) -> dict[str, Any]:
    """What httpx2's `request` takes."""
    given: dict[str, Any] = {
        "method": request.method,
        "url": address.url + request.path,
        "headers": {**address.headers, **request.headers},
        "timeout": httpx2.Timeout(ANSWER_S + request.wait_s, connect=CONNECT_S),
    }
    if request.params:
        given["params"] = dict(request.params)
    if request.json is not None:
        given["json"] = request.json
    if request.file is not None:
        given["files"] = {"file": request.file}
    return given


def stream_arguments(address: Address, path: str, last_event_id: int) -> dict[str, Any]:
    """What httpx2's `stream` takes for server-sent events behind `last_event_id`."""
    headers = {**address.headers, "Accept": "text/event-stream"}
    if last_event_id:
        headers["Last-Event-ID"] = str(last_event_id)
    timeout = httpx2.Timeout(QUIET_S, connect=CONNECT_S)
    return {"method": "GET", "url": address.url + path, "headers": headers, "timeout": timeout}


def answer_of(response: httpx2.Response) -> Response:
    """An answer whose body has been read."""
    if response.is_redirect:
        raise BadAnswer(f"The service is somewhere else: {response.headers.get('location', 'unknown')}.")
    return Response(response.status_code, {k.lower(): v for k, v in response.headers.items()}, response.content)


def unreachable(address: Address, error: Exception) -> Unreachable:
    """What to tell when no answer came."""
    reason = str(error) or type(error).__name__
    return Unreachable(f"No answer from {address.url}: {reason}. Is the service running, and is the URL right?")
