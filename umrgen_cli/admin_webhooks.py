"""`umrgen-admin webhooks …` and `umrgen-admin agents webhook-secret`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table

from umrgen_core.clock import SystemClock, format_time
from umrgen_core.config import Settings
from umrgen_core.database import open_database
from umrgen_core.errors import AccountError
from umrgen_core.webhook_secrets import GRACE_S, derive_secret, read_master
from umrgen_core.webhook_store import WebhookState, WebhookStore
from umrgen_core.webhooks import name_webhook

PIPE_COLUMNS = 240

Act = Callable[[WebhookStore, Settings, argparse.Namespace], Awaitable[None]]


def add_webhook_commands(commands: Any, shared: argparse.ArgumentParser) -> None:
    """Add the group to the parser of umrgen-admin."""
    webhooks = commands.add_parser("webhooks", help="what agents are told of their jobs").add_subparsers(
        required=True, metavar="ACTION"
    )
    listed = _command(webhooks, shared, "list", _list, "the newest hundred, and what came of them")
    listed.add_argument("--state", choices=list(WebhookState), help="default: all")
    replay = _command(webhooks, shared, "replay", _replay, "send again, under the same id")
    replay.add_argument("id", nargs="?", help="of a webhook or its job")
    replay.add_argument("--failed", action="store_true", help="every one that was given up")


def add_secret_command(agents: Any, shared: argparse.ArgumentParser) -> None:
    """Add the agent's secret to the group of agents."""
    secret = _command(agents, shared, "webhook-secret", _show_secret, "the secret that signs an agent's webhooks")
    secret.add_argument("name")
    secret.add_argument("--rotate", action="store_true", help="a new one; the old one signs too for a day")


def _command(group: Any, shared: argparse.ArgumentParser, name: str, act: Act, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = group.add_parser(name, parents=[shared], help=text, description=text)
    parser.set_defaults(command=lambda settings, options: asyncio.run(_with_store(settings, options, act)))
    return parser


async def _with_store(settings: Settings, options: argparse.Namespace, act: Act) -> None:
    async with open_database(settings, SystemClock()) as database:
        await database.integrity.wait()
        await act(WebhookStore(database), settings, options)


async def _list(store: WebhookStore, _: Settings, options: argparse.Namespace) -> None:
    table = Table("webhook", "agent", "event", "host", "state", "attempts", "last tried", "outcome")
    for row in await store.list_newest(options.state):
        tried = "-" if row["tried_at_us"] is None else format_time(row["tried_at_us"])
        host = urlsplit(row["callback_url"]).hostname or "-"  # the rest of a URL may be a secret
        told = (name_webhook(row["job_id"]), row["agent_name"], f"job.{row['job_state']}", host)
        table.add_row(*told, row["state"], str(row["attempts"]), tried, row["outcome"] or "-")
    Console(width=None if sys.stdout.isatty() else PIPE_COLUMNS).print(table)


async def _replay(store: WebhookStore, _: Settings, options: argparse.Namespace) -> None:
    if (options.id is None) is not options.failed:
        raise AccountError("name one webhook, or --failed for all that were given up")
    if options.failed:
        print(f"due again: {await store.replay_failed()}")
    else:
        print(f"due again: {name_webhook(await store.replay(options.id))}")


async def _show_secret(store: WebhookStore, settings: Settings, options: argparse.Namespace) -> None:
    master = await asyncio.to_thread(read_master, settings.secret_path)
    known = await store.get_secret_version(options.name, rotate=options.rotate)
    print(derive_secret(master, known.session_id, known.version))
    if options.rotate:
        print(f"the secret before it signs too for {GRACE_S // 3600} hours", file=sys.stderr)
