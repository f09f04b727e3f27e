"""`umrgen-admin agents …` and `umrgen-admin keys …`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from umrgen_cli.admin_webhooks import add_secret_command
from umrgen_core.accounts import AGENT_NAME, Accounts, Limit, Limits, MintedKey
from umrgen_core.agents import DEFAULT_SCOPES, SHIPPED_CATEGORIES, Scope
from umrgen_core.clock import SystemClock, format_time
from umrgen_core.config import Settings
from umrgen_core.database import open_database
from umrgen_core.errors import AccountError

DAY_S = 86_400
DEFAULT_GRACE_S = 7 * DAY_S
PIPE_COLUMNS = 240

Act = Callable[[Accounts, argparse.Namespace], Awaitable[None]]


def add_commands(commands: Any, shared: argparse.ArgumentParser) -> None:
    """Add both groups to the parser of umrgen-admin."""
    agents = commands.add_parser("agents", help="who may use the service").add_subparsers(
        required=True, metavar="ACTION"
    )
    create = _command(agents, shared, "create", _create_agent, "a new agent with its first key")
    create.add_argument("name")
    _add_limits(create)
    _command(agents, shared, "list", _list_agents, "every agent, its limits and what it uses")
    limits = _command(agents, shared, "limits", _limit_agent, "change an agent's own limits")
    limits.add_argument("name")
    _add_limits(limits)
    safety = _command(agents, shared, "safety", _set_safety, "the blocked keywords that hold for an agent")
    safety.add_argument("name")
    safety.add_argument(
        "--off", required=True, metavar="LIST", help="categories not checked, as in sexual,violence; or 'none'"
    )
    add_secret_command(agents, shared)
    keys = commands.add_parser("keys", help="the keys of agents").add_subparsers(required=True, metavar="ACTION")
    create = _command(keys, shared, "create", _create_key, "a further key of an agent; shown once")
    create.add_argument("agent")
    create.add_argument("--name", default="key", help="what the key is for")
    usual = ",".join(DEFAULT_SCOPES)
    create.add_argument("--scopes", default=usual, help=f"default: {usual}; admin opens the console's owner's pages")
    create.add_argument("--days", type=float, help="days until it expires; default: never")
    _add_limits(create)
    _command(keys, shared, "list", _list_keys, "every key, without the key itself")
    rotate = _command(keys, shared, "rotate", _rotate_key, "a new key like an old one, which goes on for a while")
    rotate.add_argument("id", type=int)
    rotate.add_argument("--grace-s", type=float, default=DEFAULT_GRACE_S, help="default: 7 days")
    _command(keys, shared, "revoke", _revoke_key, "end a key at once").add_argument("id", type=int)


def _command(group: Any, shared: argparse.ArgumentParser, name: str, act: Act, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = group.add_parser(name, parents=[shared], help=text, description=text)
    parser.set_defaults(command=lambda settings, options: asyncio.run(_with_accounts(settings, options, act)))
    return parser


def _add_limits(parser: argparse.ArgumentParser) -> None:
    for limit in Limit:
        parser.add_argument(f"--{limit.value.replace('_', '-')}", metavar="N", help="a number, or 'default'")


async def _with_accounts(settings: Settings, options: argparse.Namespace, act: Act) -> None:
    options.categories = _list_categories(settings)
    async with open_database(settings, SystemClock()) as database:
        await database.integrity.wait()
        await act(Accounts(database), options)


def _read_limits(options: argparse.Namespace) -> Limits:
    given = {limit: getattr(options, limit.value) for limit in Limit}
    return {limit: _read_limit(limit, value) for limit, value in given.items() if value is not None}


def _read_limit(limit: Limit, value: str) -> int | None:
    if value == "default":
        return None
    if not value.isascii() or not value.isdigit():
        raise AccountError(f"{limit.value}: must be a whole number from 0, or 'default' (got {value!r})")
    return int(value)


def _read_scopes(text: str) -> list[Scope]:
    try:
        return [Scope(scope.strip()) for scope in text.split(",")]
    except ValueError:
        raise AccountError(f"scopes: must be some of {', '.join(Scope)} (got {text!r})") from None


async def _create_agent(accounts: Accounts, options: argparse.Namespace) -> None:
    if not AGENT_NAME.fullmatch(options.name):
        raise AccountError("name: must be 1 to 64 letters, digits, '.', '_' or '-', and begin with a letter or digit")
    session_id = await accounts.create_agent(options.name, _read_limits(options))
    print(f"agent:   {options.name}\nsession: {session_id}")
    _show(await accounts.create_key(options.name, "first", DEFAULT_SCOPES, None, {}))


async def _limit_agent(accounts: Accounts, options: argparse.Namespace) -> None:
    limits = _read_limits(options)
    if not limits:
        raise AccountError("name at least one limit, such as --concurrent-jobs 4")
    await accounts.set_agent_limits(options.name, limits)
    print(f"changed the limits of {options.name}; they hold from the next request on")


async def _set_safety(accounts: Accounts, options: argparse.Namespace) -> None:
    off = [] if options.off == "none" else [name.strip() for name in options.off.split(",")]
    known = options.categories
    if unknown := [name for name in off if name not in known]:
        raise AccountError(f"there is no category {unknown[0]!r}; there are {', '.join(known)}")
    await accounts.set_safety_off(options.name, off)
    print(f"not checked for {options.name} from the next request on: {', '.join(off) or 'nothing, all is checked'}")


def _list_categories(settings: Settings) -> list[str]:
    own = Path(settings.safety.lists).glob("*.toml") if settings.safety.lists else ()
    return sorted({*SHIPPED_CATEGORIES, *(path.stem for path in own)})


async def _create_key(accounts: Accounts, options: argparse.Namespace) -> None:
    expires_at_us = None if options.days is None else SystemClock().wall_us() + int(options.days * DAY_S * 1e6)
    scopes = _read_scopes(options.scopes)
    _show(await accounts.create_key(options.agent, options.name, scopes, expires_at_us, _read_limits(options)))


async def _rotate_key(accounts: Accounts, options: argparse.Namespace) -> None:
    _show(await accounts.rotate_key(options.id, options.grace_s))
    print(f"key {options.id} goes on for {options.grace_s:g} s")


async def _revoke_key(accounts: Accounts, options: argparse.Namespace) -> None:
    await accounts.revoke_key(options.id)
    print(f"key {options.id} is revoked")


async def _list_agents(accounts: Accounts, _: argparse.Namespace) -> None:
    table = Table(
        "agent",
        "session",
        "keys",
        "references",
        "bytes",
        "output bytes",
        *(limit.value for limit in Limit),
        "not checked",
    )
    for row in await accounts.list_agents():
        usage = (row["used_references"], row["used_reference_bytes"], row["used_output_bytes"])
        own = ("default" if row[limit] is None else row[limit] for limit in Limit)
        table.add_row(
            row["name"], row["session_id"], *map(str, (row["live_keys"], *usage, *own)), row["safety_off"] or "-"
        )
    _print(table)


async def _list_keys(accounts: Accounts, _: argparse.Namespace) -> None:
    table = Table("id", "agent", "name", "scopes", "created", "expires", "revoked")
    for row in await accounts.list_keys():
        times = (row[column] for column in ("created_at_us", "expires_at_us", "revoked_at_us"))
        shown = ("-" if us is None else format_time(us) for us in times)
        table.add_row(str(row["id"]), row["agent_name"], row["name"], row["scopes"], *shown)
    _print(table)


def _print(table: Table) -> None:
    Console(width=None if sys.stdout.isatty() else PIPE_COLUMNS).print(table)


def _show(minted: MintedKey) -> None:
    print(f"key {minted.id}:   {minted.key}\n(shown this once; the store keeps only its digest)")
