"""A real browser before both real daemons. Whatever it complains about fails the test that made it complain."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

from tests.conftest import make_settings
from tests.e2e.conftest import Stack
from umrgen_core.accounts import Accounts, MintedKey
from umrgen_core.agents import DEFAULT_SCOPES, Scope
from umrgen_core.clock import SystemClock
from umrgen_core.database import open_database

CHROMIUM = shutil.which("chromium")
ARGUMENTS = ["--no-sandbox", "--disable-dev-shm-usage"]
"""Root may not run the browser in its sandbox, and a container's shared memory is small."""
ENVIRONMENT = {"UMRGEN_LIMITS__CONCURRENT_JOBS": "4", "UMRGEN_LIMITS__RATE_PER_MINUTE": "1000"}
MOST_MS = 20_000


def in_a_thread(work: Coroutine[Any, Any, Any]) -> Any:
    """Run it in a loop elsewhere: the browser's has this thread."""
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(asyncio.run, work).result()


class Service(Stack):
    """Both daemons, and keys for those who sign in."""

    def mint(self, agent: str, *scopes: Scope) -> MintedKey:
        """A key of an agent of its own; without scopes named, with the usual ones."""
        return in_a_thread(self._mint(agent, scopes or DEFAULT_SCOPES))

    async def _mint(self, agent: str, scopes: tuple[Scope, ...]) -> MintedKey:
        async with open_database(make_settings(self.data_dir), SystemClock()) as database:
            accounts = Accounts(database)
            if agent not in {row["name"] for row in await accounts.list_agents()}:
                await accounts.create_agent(agent, {})
            return await accounts.create_key(agent, "browser", scopes, None, {})

    def revoke(self, key_id: int) -> None:
        in_a_thread(self._revoke(key_id))

    async def _revoke(self, key_id: int) -> None:
        async with open_database(make_settings(self.data_dir), SystemClock()) as database:
            await Accounts(database).revoke_key(key_id)


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One running service for all who browse."""
    if CHROMIUM is None:
        pytest.skip("there is no chromium: apt-get install --no-install-recommends chromium")
    with ExitStack() as exits:
        shared = Service(tmp_path_factory.mktemp("console") / "data", exits, **ENVIRONMENT)
        shared.start_infer()
        shared.start_api()
        shared.wait_ready()
        yield shared


@pytest.fixture(scope="module")
def chromium(service: Service) -> Iterator[Browser]:
    """The browser."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


class Visitor:
    """A browser window of its own, with its cookies, and what it complained about."""

    def __init__(self, service: Service, context: BrowserContext) -> None:
        self.service = service
        self.context = context
        self.complaints: list[str] = []
        self.page: Page = context.new_page()
        context.set_default_timeout(MOST_MS)
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.complaints.append(f"{error}"))
        self.page.on("dialog", lambda dialog: self.complaints.append(dialog.message))

    def _hear(self, message: ConsoleMessage) -> None:
        # A status of 4xx is an answer like any other; chromium lists it among the errors.
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.complaints.append(message.text)

    def open(self, path: str) -> Page:
        self.page.goto(self.service.url + path)
        return self.page

    def sign_in(self, key: str, path: str = "/console") -> Page:
        page = self.open(path)
        page.get_by_label("Key").fill(key)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_selector(".who")
        return page


@pytest.fixture
def visit(service: Service, chromium: Browser) -> Iterator[Callable[..., Visitor]]:
    """`visit(color_scheme="dark")`: a new window."""
    visitors: list[Visitor] = []

    def open_window(**options: object) -> Visitor:
        visitors.append(Visitor(service, chromium.new_context(**options)))  # type: ignore[arg-type]
        return visitors[-1]

    yield open_window
    for visitor in visitors:
        visitor.context.close()
        assert visitor.complaints == []


def give_files(page: Page, event: str, *files: Path) -> None:
    """Drop files on the page, or paste them."""
    contents = [[path.name, list(path.read_bytes())] for path in files]
    page.evaluate(
        """([kind, files]) => {
          const data = new DataTransfer();
          for (const [name, bytes] of files) {
            data.items.add(new File([new Uint8Array(bytes)], name, {type: "image/png"}));
          }
          const options = {bubbles: true, cancelable: true};
          const event = kind === "drop"
            ? new DragEvent("drop", {...options, dataTransfer: data})
            : new ClipboardEvent("paste", {...options, clipboardData: data});
          document.getElementById("images").dispatchEvent(event);
        }""",
        [event, contents],
    )
