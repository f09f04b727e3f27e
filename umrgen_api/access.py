"""Who is asking, and may they: keys, scopes and what each endpoint needs."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import NoReturn

from aiohttp import hdrs, web

from umrgen_api.clients import find_prefix
from umrgen_api.rates import Rate
from umrgen_api.services import Services, services_of
from umrgen_core.agents import Agent, Scope
from umrgen_core.errors import Forbidden, Unauthorized
from umrgen_core.keys import is_well_formed
from umrgen_core.sqlite import Connection

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

AGENT = web.RequestKey("agent", Agent)
FOUND = web.RequestKey("found", object)
"""What the handler's `look` has brought."""
MAX_KEY_CHARS = 256
_SAID_BY_PROXIES = frozenset({"forwarded", "via", "x-real-ip", "cf-connecting-ip", "true-client-ip"})
"""Beside X-Forwarded-…: headers that no browser sends of its own."""


Look = Callable[[web.Request, Connection, Agent], object]
"""What a handler reads first, on behalf of the agent of a live key, in the reader's thread."""


def look_at_nothing(_request: web.Request, _connection: Connection, _agent: Agent) -> None:
    """What most handlers read along with the key."""


@dataclass(frozen=True, slots=True)
class Access:
    """What an endpoint under /api/v1 asks of its caller, and what it reads along with the key."""

    scope: Scope
    rate: Rate
    look: Look = look_at_nothing


def needs(scope: Scope, rate: Rate, look: Look = look_at_nothing) -> Callable[[Handler], Handler]:
    """Declare what a handler asks of its caller; the middleware holds it to that.

    What `look` gives is in `request[FOUND]`: it is read in one hop with the key, for it would cost another.
    """

    def mark(handler: Handler) -> Handler:
        handler.access = Access(scope, rate, look)  # type: ignore[attr-defined]
        return handler

    return mark


async def admit(request: web.Request) -> None:
    """Authenticate a request under /api/v1, check its scope and count it.

    Raises Unauthorized, Forbidden or RateLimit. The agent is then in `agent_of(request)`.
    """
    access: Access | None = getattr(request.match_info.handler, "access", None)
    agent = await find_agent(request, look_at_nothing if access is None else access.look)
    if agent is None:
        refuse_stranger(request)
    request[AGENT] = agent
    if access is None:  # no such route or method: told only to those who may be here
        return
    hold_to(request, agent, access)


def hold_to(request: web.Request, agent: Agent, access: Access) -> None:
    """Check an agent's scope and count the request. Raises Forbidden or RateLimit."""
    require_scope(agent, access.scope)
    services_of(request).rates.take(agent, access.rate)


def require_scope(agent: Agent, scope: Scope) -> None:
    """Raise Forbidden unless the agent's key has the scope."""
    if scope not in agent.scopes:
        raise Forbidden(f"Your key lacks the scope '{scope}'. Ask the owner for one that has it.")


def refuse_stranger(request: web.Request) -> NoReturn:
    """Answer a request without a valid key, and count it. Raises Unauthorized or RateLimit."""
    services = services_of(request)
    settings = services.settings
    prefix = find_prefix(request, settings.api.trusted_proxies)
    services.rates.take_failure(prefix, settings.auth.failures_per_minute)
    raise Unauthorized


def agent_of(request: web.Request) -> Agent:
    """The agent of an admitted request."""
    return request[AGENT]


async def find_agent(request: web.Request, look: Look = look_at_nothing) -> Agent | None:
    """The agent whose valid key the request carries, or None."""
    key = _bearer_key(request)
    return None if key is None else await find_agent_by_key(request, key, look)


async def find_agent_by_key(request: web.Request, key: str, look: Look = look_at_nothing) -> Agent | None:
    """The agent of a key that counts for this request, or None. With the agent there is what `look` has read."""
    services = services_of(request)
    if not (is_well_formed(key) or _is_usable_development_key(services, request, key)):
        return None
    found = await services.agents.find_by_key_and(key, partial(look, request))
    if found is None:
        return None
    agent, request[FOUND] = found
    return agent


def _bearer_key(request: web.Request) -> str | None:
    scheme, _, key = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    key = key.strip()
    return key if scheme.lower() == "bearer" and 0 < len(key) <= MAX_KEY_CHARS else None


def _is_usable_development_key(services: Services, request: web.Request, key: str) -> bool:
    auth = services.settings.auth
    if not auth.development_key:
        return False
    # Bytes: compare_digest refuses a str that is not ASCII.
    same = hmac.compare_digest(key.encode("utf-8", "surrogateescape"), auth.development_key.encode())
    return same and may_use_development_key(request)


def may_use_development_key(request: web.Request) -> bool:
    """Whether the development key counts where this request comes from."""
    return services_of(request).settings.auth.development_key_public or not came_through_proxy(request)


def came_through_proxy(request: web.Request) -> bool:
    """Whether anything on the way says that it forwards the request."""
    # A tunnel connects to loopback too, so the address proves nothing.
    return any(name in _SAID_BY_PROXIES or name.startswith("x-forwarded-") for name in map(str.lower, request.headers))
