"""GET and POST /console/sign-in, POST /console/sign-out."""

from __future__ import annotations

import re
from collections.abc import Mapping

from aiohttp import web

from umrgen_api.access import find_agent_by_key, refuse_stranger
from umrgen_api.console.forms import read_fields
from umrgen_api.console.gate import FORM_TOKEN_FIELD, SESSIONS, require_form_token
from umrgen_api.console.origins import require_own_origin
from umrgen_api.console.pages import lead_to, show
from umrgen_api.console.sessions import PATH
from umrgen_core.agents import Agent, Scope
from umrgen_core.errors import Unauthorized

MAX_KEY_CHARS = 256
_OWN_PATH = re.compile(rf"{PATH}(?:[/?][\x21-\x5b\x5d-\x7e]{{0,500}})?")


async def show_sign_in(request: web.Request) -> web.Response:
    """Ask for a key; whoever is signed in goes on to where they wanted."""
    where = _read_next(request.query)
    if await request.app[SESSIONS].find(request) is not None:
        return lead_to(where)
    # A link on another site comes without the cookie, which is SameSite=Strict: one more click brings it along.
    may_be_signed_in = request.headers.get("Sec-Fetch-Site") == "cross-site"
    return show(request, "sign_in.html", next=where, problem=None, may_be_signed_in=may_be_signed_in)


async def sign_in(request: web.Request) -> web.Response:
    """A cookie for a valid key. A refused one counts as everywhere else."""
    require_own_origin(request)
    fields = await read_fields(request)
    key, where = fields.get("key", "").strip(), _read_next(fields)
    agent = await find_agent_by_key(request, key) if 0 < len(key) <= MAX_KEY_CHARS else None
    if agent is None:
        return _refuse(request, where)
    response = lead_to(_choose_page(agent, where))
    await request.app[SESSIONS].open(request, response, agent, key)
    return response


def _refuse(request: web.Request, where: str) -> web.Response:
    """Ask again. Raises RateLimit when too many wrong keys came from the same network."""
    try:
        refuse_stranger(request)
    except Unauthorized:
        problem = "This is no valid key. Check that it was copied whole, or ask the owner for a new one."
        return show(request, "sign_in.html", status=401, next=where, problem=problem, may_be_signed_in=False)


async def sign_out(request: web.Request) -> web.Response:
    """End the session, also for whoever copied its cookie."""
    require_own_origin(request)
    fields = await read_fields(request)
    session = await request.app[SESSIONS].find(request)
    if session is not None:
        require_form_token(session, fields.get(FORM_TOKEN_FIELD, ""))
    response = lead_to(f"{PATH}/sign-in")
    await request.app[SESSIONS].close(request, response)
    return response


def _choose_page(agent: Agent, where: str) -> str:
    is_owner_only = Scope.ADMIN in agent.scopes and Scope.READ not in agent.scopes
    return f"{PATH}/admin" if is_owner_only and where == PATH else where


def _read_next(values: Mapping[str, str]) -> str:
    """Where to go after signing in: a page of the console, whatever was asked for."""
    asked = values.get("next", "")
    return asked if _OWN_PATH.fullmatch(asked) else PATH
