"""What stands before every handler of the console: session, origin, form token, scope and rate."""

from __future__ import annotations

import functools
import hmac
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from umrgen_api.access import Access, Handler, hold_to, require_scope
from umrgen_api.console.forms import read_fields
from umrgen_api.console.origins import is_at_the_box, require_own_origin
from umrgen_api.console.sessions import SESSION, Session, Sessions
from umrgen_api.rates import Rate
from umrgen_api.services import services_of
from umrgen_core.agents import Scope
from umrgen_core.errors import Forbidden

FormHandler = Callable[[web.Request, Mapping[str, str]], Awaitable[web.StreamResponse]]

SESSIONS = web.AppKey("console_sessions", Sessions)
FORM_TOKEN_FIELD = "form_token"  # noqa: S105 - a field's name
FORM_TOKEN_HEADER = "X-Form-Token"  # noqa: S105 - a header's name
_SAFE = frozenset({"GET", "HEAD"})


def page(scope: Scope) -> Callable[[Handler], Handler]:
    """A page that is shown to who is signed in with this scope."""

    def wrap(handler: Handler) -> Handler:
        @functools.wraps(handler)
        async def show(request: web.Request) -> web.StreamResponse:
            await _enter(request, Access(scope, Rate.READ))
            return await handler(request)

        return show

    return wrap


def picture(handler: Handler) -> Handler:
    """A file that a page shows: not counted, as the API's are not, or a gallery would use up a minute's reads."""

    @functools.wraps(handler)
    async def serve(request: web.Request) -> web.StreamResponse:
        session = await request.app[SESSIONS].get(request)
        require_scope(session.agent, Scope.READ)
        return await handler(request)

    return serve


def form(scope: Scope) -> Callable[[FormHandler], Handler]:
    """What a small form of a page does: its fields are read, its token checked."""

    def wrap(handler: FormHandler) -> Handler:
        @functools.wraps(handler)
        async def act(request: web.Request) -> web.StreamResponse:
            require_own_origin(request)
            session = await _enter(request, Access(scope, Rate.READ))
            fields = await read_fields(request)
            require_form_token(session, fields.get(FORM_TOKEN_FIELD, ""))
            return await handler(request, fields)

        return act

    return wrap


def by_session(handler: Handler) -> Handler:
    """An endpoint of the API for the console's own scripts: the same handler, scope and rate, with the cookie."""
    access: Access = handler.access  # type: ignore[attr-defined]

    @functools.wraps(handler)
    async def call(request: web.Request) -> web.StreamResponse:
        if request.method not in _SAFE:
            require_own_origin(request)
        session = await request.app[SESSIONS].get(request)
        if request.method not in _SAFE:
            require_form_token(session, request.headers.get(FORM_TOKEN_HEADER, ""))
        hold_to(request, session.agent, access)
        return await handler(request)

    return call


async def enter_to_submit(request: web.Request) -> Session:
    """The session of a large form that is yet to be read, and then to be counted as what it asks for.

    Counted as a look at the page until then: that is what comes back when it is refused, with all that was typed.
    Raises Unauthorized, Forbidden or RateLimit.
    """
    require_own_origin(request)
    return await _enter(request, Access(Scope.GENERATE, Rate.READ))


def require_form_token(session: Session, token: str) -> None:
    """Raise Forbidden unless the request brings what only a page of this very session holds."""
    if not hmac.compare_digest(token.encode("utf-8", "surrogateescape"), session.form_token.encode()):
        raise Forbidden("This page is out of date: you have signed in anew since. Reload it and try again.")


def session_of(request: web.Request) -> Session:
    """The session of a request that was let in."""
    return request[SESSION]


async def _enter(request: web.Request, access: Access) -> Session:
    session = await request.app[SESSIONS].get(request)
    hold_to(request, session.agent, access)
    if access.scope is Scope.ADMIN:
        _require_owner(request, session)
    return session


def _require_owner(request: web.Request, session: Session) -> None:
    if session.is_development:
        raise Forbidden("The development key never opens the owner's pages.")
    if not (services_of(request).settings.console.admin_through_proxy or is_at_the_box(request)):
        raise Forbidden(
            "The owner's pages answer on the box itself only, at http://127.0.0.1 or http://localhost (through an SSH"
            " tunnel too), unless [console] admin_through_proxy = true."
        )
