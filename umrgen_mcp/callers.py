"""Whose call it is: the client of the HTTP API that one tool call works with."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx2
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError

from umrgen_client import AsyncClient, BadAnswer, Forbidden, Retry, UmrgenError, Unreachable

CallContext = Context[Any, Any]
NO_ANSWER = "The service gives no answer that can be used. Try again in a while."


@dataclass(frozen=True, slots=True)
class Callers:
    """Clients for callers, over shared connections.

    `api_key` is that of the one caller of stdio. Over HTTP it is empty, and each call must bring its own.
    """

    api_url: str
    http: httpx2.AsyncClient
    api_key: str = ""

    def client_of(self, context: CallContext) -> AsyncClient:
        """A client with the caller's key. Raises ToolError without one. It need not be closed."""
        if self.api_key:
            return AsyncClient(self.api_url, self.api_key, http=self.http)
        headers = context.headers or {}
        key = bearer_key(headers.get("authorization", ""))
        if not key:
            raise ToolError("Send your UMRGEN key with every call: Authorization: Bearer KEY (code: unauthorized)")
        request = context.request_context.request
        peer = getattr(getattr(request, "client", None), "host", "")
        return AsyncClient(self.api_url, key, headers=forwarding(headers, peer), http=self.http)

    def explain(self, error: UmrgenError) -> str:
        """What to tell the caller; the address of the web tier only to one who has named it."""
        inner = isinstance(error, (Unreachable, BadAnswer))
        return NO_ANSWER if inner and not self.api_key else error.message


async def find_refusal(callers: Callers, headers: Mapping[str, str], peer: str) -> UmrgenError | None:
    """What the web tier has against the key in `headers`; None when it knows it."""
    client = AsyncClient(
        callers.api_url,
        bearer_key(headers.get("authorization", "")),
        headers=forwarding(headers, peer),
        retry=Retry(patience_s=0, outage_s=0),
        http=callers.http,
    )
    try:
        await client.me()
    except Forbidden:  # a key that may upload, but not read
        return None
    except UmrgenError as error:
        return error
    return None


def bearer_key(authorization: str) -> str:
    """The key of an Authorization header, or an empty string."""
    scheme, _, key = authorization.partition(" ")
    key = key.strip()
    return key if scheme.lower() == "bearer" and key.isascii() and key.isprintable() and " " not in key else ""


def forwarding(headers: Mapping[str, str], peer: str) -> dict[str, str]:
    """What tells the web tier that a call came from elsewhere.

    Its development key counts on this machine only; a call that this server passes on must not look like one of
    this machine's when it is not.
    """
    came = any(name.lower() == "forwarded" or name.lower().startswith("x-forwarded-") for name in headers)
    if not came and _is_loopback(peer):
        return {}
    earlier = headers.get("x-forwarded-for", "")
    return {"X-Forwarded-For": f"{earlier}, {peer or 'unknown'}".removeprefix(", ")}


def _is_loopback(peer: str) -> bool:
    try:
        return ipaddress.ip_address(peer).is_loopback
    except ValueError:
        return False
