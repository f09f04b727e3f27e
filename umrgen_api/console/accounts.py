"""The owner's pages about agents, their limits and their keys."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from umrgen_api.console.admin import record
from umrgen_api.console.gate import form, page
from umrgen_api.console.pages import lead_to, show
from umrgen_api.console.sessions import PATH
from umrgen_api.services import services_of
from umrgen_core.accounts import AGENT_NAME, Accounts, Limit, Limits, MintedKey
from umrgen_core.agent_store import DEVELOPMENT_AGENT, DEVELOPMENT_KEY_NAME
from umrgen_core.agents import DEFAULT_SCOPES, Scope
from umrgen_core.errors import AccountError

AGENTS = f"{PATH}/admin/agents"
DAY_S = 86_400
MAX_DAYS = 36_500
MAX_LIMIT = 2**53
LIMIT_WORDS: Mapping[Limit, str] = {
    Limit.CONCURRENT_JOBS: "Jobs at a time",
    Limit.RATE: "Generates and uploads a minute",
    Limit.READS: "Other requests a minute",
    Limit.REFERENCES: "References kept",
    Limit.REFERENCE_BYTES: "Bytes of references",
    Limit.OUTPUT_BYTES: "Bytes of pictures",
}

Act = Callable[[Accounts, Mapping[str, str]], Awaitable[MintedKey | None]]


@page(Scope.ADMIN)
async def show_agents(request: web.Request) -> web.Response:
    """Every agent with its limits, and every key without the key."""
    return await _show(request)


async def _show(request: web.Request, problem: str | None = None, minted: MintedKey | None = None) -> web.Response:
    services = services_of(request)
    accounts, limits = Accounts(services.database), services.settings.limits
    defaults = (limits.concurrent_jobs, limits.rate_per_minute, limits.reads_per_minute, limits.references,
                limits.reference_bytes, limits.output_bytes)  # fmt: skip
    return show(
        request,
        "agents.html",
        status=200 if problem is None else 400,
        agents=await accounts.list_agents(),
        keys=await accounts.list_keys(),
        now_us=services.clock.wall_us(),
        limits=[(limit.value, LIMIT_WORDS[limit], default) for limit, default in zip(Limit, defaults, strict=True)],
        scopes=list(Scope),
        usual_scopes=DEFAULT_SCOPES,
        development=(DEVELOPMENT_AGENT, DEVELOPMENT_KEY_NAME),
        problem=problem,
        minted=minted,
    )


async def _do(request: web.Request, fields: Mapping[str, str], action: str, act: Act) -> web.Response:
    """Do it, then show the new key once, or lead back to the page; or say what is wrong."""
    try:
        minted = await act(Accounts(services_of(request).database), fields)
    except AccountError as error:
        return await _show(request, error.message)
    record(request, action, fields.get("agent") or fields.get("name") or request.match_info.get("key_id", ""))
    return lead_to(AGENTS) if minted is None else await _show(request, minted=minted)


@form(Scope.ADMIN)
async def create_agent(request: web.Request, fields: Mapping[str, str]) -> web.Response:
    """A new agent with its first key."""

    async def act(accounts: Accounts, fields: Mapping[str, str]) -> MintedKey:
        name = fields.get("name", "").strip()
        if not AGENT_NAME.fullmatch(name):
            raise AccountError("a name has 1 to 64 letters, digits, '.', '_' or '-', and begins with a letter or digit")
        await accounts.create_agent(name, _read_limits(fields))
        return await accounts.create_key(name, "first", DEFAULT_SCOPES, None, {})

    return await _do(request, fields, "agent_create", act)


@form(Scope.ADMIN)
async def limit_agent(request: web.Request, fields: Mapping[str, str]) -> web.Response:
    """Change an agent's limits; an empty one is the default again."""

    async def act(accounts: Accounts, fields: Mapping[str, str]) -> None:
        await accounts.set_agent_limits(fields.get("agent", ""), _read_limits(fields))

    return await _do(request, fields, "agent_limit", act)


@form(Scope.ADMIN)
async def create_key(request: web.Request, fields: Mapping[str, str]) -> web.Response:
    """A further key of an agent."""
    now_us = services_of(request).clock.wall_us()

    async def act(accounts: Accounts, fields: Mapping[str, str]) -> MintedKey:
        scopes = [scope for scope in Scope if fields.get(f"scope_{scope.value}")]
        if not scopes:
            raise AccountError("a key needs at least one scope")
        days = _read_number("days", fields.get("days", ""), MAX_DAYS)
        expires_at_us = None if days is None else now_us + days * DAY_S * 1_000_000
        name = fields.get("key_name", "").strip()[:64] or "key"
        return await accounts.create_key(fields.get("agent", ""), name, scopes, expires_at_us, {})

    return await _do(request, fields, "key_create", act)


@form(Scope.ADMIN)
async def change_key(request: web.Request, fields: Mapping[str, str]) -> web.Response:
    """Rotate a key, which goes on for as many days as are named, or revoke it at once."""
    key_id = request.match_info["key_id"]

    async def act(accounts: Accounts, fields: Mapping[str, str]) -> MintedKey | None:
        number = _read_number("key", key_id, 10**15) or 0
        if fields.get("action") == "revoke":
            await accounts.revoke_key(number)
            return None
        if fields.get("action") != "rotate":
            raise AccountError("say what to do: rotate or revoke")
        days = _read_number("days", fields.get("days", ""), MAX_DAYS) or 0
        return await accounts.rotate_key(number, days * DAY_S)

    return await _do(request, fields, f"key_{fields.get('action', '')[:10]}", act)


def _read_limits(fields: Mapping[str, str]) -> Limits:
    return {limit: _read_number(LIMIT_WORDS[limit], fields[limit], MAX_LIMIT) for limit in Limit if limit in fields}


def _read_number(what: str, text: str, most: int) -> int | None:
    """A whole number; None for nothing. Raises AccountError."""
    text = text.strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 17 and int(text) <= most):
        raise AccountError(f"{what}: must be a whole number from 0 to {most}, or empty")
    return int(text)
