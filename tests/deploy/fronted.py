"""A service that is set as docs/proxies.md says, with both proxies before it; and one that dies."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import tomllib
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.conftest import ROOT, make_settings
from tests.deploy.proxies import PROXIES, run_proxy
from tests.e2e.conftest import Stack
from tests.e2e.test_supervision import Hearing, start_web
from umrgen_cli.processes import Daemon
from umrgen_core.accounts import Accounts
from umrgen_core.agents import DEFAULT_SCOPES, Scope
from umrgen_core.clock import SystemClock
from umrgen_core.database import Database, open_database
from umrgen_core.queue_control import QueueControl

FAILURES = 3
"""Refused keys of one network in a minute."""
MOST_S = 20.0


def read_recommended() -> dict[str, str]:
    """The settings of the page, as variables of the environment."""
    page = (ROOT / "docs" / "proxies.md").read_text(encoding="utf-8")
    tree = tomllib.loads(page.split("```toml\n", 1)[1].split("```", 1)[0])
    return {
        f"UMRGEN_{section}__{key}".upper(): value if isinstance(value, str) else json.dumps(value)
        for section, values in tree.items()
        for key, value in values.items()
    }


class Site:
    """The service as the page says, and both proxies before it."""

    def __init__(self, folder: Path, exits: ExitStack) -> None:
        self.settings = make_settings(folder / "data")
        self.key, self.owners_key = asyncio.run(self._with_database(mint_keys))
        many = {"UMRGEN_LIMITS__RATE_PER_MINUTE": "100000", "UMRGEN_METRICS__API_LISTEN": "127.0.0.1:0"}
        self.stack = Stack(folder / "data", exits, **read_recommended(), **many)
        self.stack.environment["UMRGEN_AUTH__FAILURES_PER_MINUTE"] = str(FAILURES)
        self.stack.start_infer()
        self._listening = exits.enter_context(socket.create_server(("127.0.0.1", 0), backlog=512))
        self.port = self._listening.getsockname()[1]
        self._hearing = Hearing(folder)
        self.web = self._start_web()
        exits.callback(self._stop_web)
        self.proxies = {kind: exits.enter_context(run_proxy(kind, folder / kind, self.port)) for kind in PROXIES}
        self.stack.url = f"http://127.0.0.1:{self.port}"

    def _start_web(self) -> Daemon:
        return start_web(self.stack, self._hearing, self._listening)

    def _stop_web(self) -> None:
        self.web.stop()

    def restart_web(self) -> None:
        """As systemd does: the socket stays."""
        self._stop_web()
        self.web = self._start_web()
        self.web.wait_for_event("listening", MOST_S)

    @contextmanager
    def paused(self) -> Iterator[None]:
        asyncio.run(self._with_database(lambda database: QueueControl(database).pause()))
        try:
            yield
        finally:
            asyncio.run(self._with_database(lambda database: QueueControl(database).resume()))

    async def _with_database(self, work: Callable[[Database], Coroutine[Any, Any, Any]]) -> Any:
        async with open_database(self.settings, SystemClock()) as database:
            return await work(database)


async def mint_keys(database: Database) -> tuple[str, str]:
    accounts = Accounts(database)
    await accounts.create_agent("alice", {})
    scopes = (DEFAULT_SCOPES, (*DEFAULT_SCOPES, Scope.ADMIN))
    minted = [await accounts.create_key("alice", "browser", some, None, {}) for some in scopes]
    return minted[0].key, minted[1].key


class HangsUp:
    """A web tier that dies over each request, and counts them."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            with connection:
                self.heads.append(connection.recv(65536).partition(b"\r\n")[0])
