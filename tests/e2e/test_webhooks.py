"""A web tier that is killed as it tells: told again, under the same id."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from standardwebhooks import Webhook

from tests.conftest import ROOT, make_settings
from tests.e2e.conftest import Stack, wait_until
from umrgen_core.claim_store import ClaimStore
from umrgen_core.clock import SystemClock
from umrgen_core.config import Settings
from umrgen_core.database import open_database

WAIT_S = 30.0
OPEN = {
    "UMRGEN_WEBHOOKS__ALLOW_PRIVATE": "true",
    "UMRGEN_WEBHOOKS__ALLOW_HTTP": "true",
    "UMRGEN_WEBHOOKS__TIMEOUT_S": "1",  # the lease of an attempt is this and twice the next
    "UMRGEN_STORAGE__LOCK_TIMEOUT_S": "1",
}


class Receiver:
    """An agent's server; while it is held, it takes a webhook and does not answer."""

    def __init__(self) -> None:
        self.heard: list[tuple[dict[str, str], bytes]] = []
        self.released = threading.Event()
        self.url = ""

    @property
    def ids(self) -> list[str]:
        return [headers["webhook-id"] for headers, _ in self.heard]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with open_receiver() as opened:
        yield opened


@contextmanager
def open_receiver() -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.heard.append((dict(self.headers.items()), body))
            receiver.released.wait(WAIT_S)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_port}/hook"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.released.set()
        server.shutdown()
        server.server_close()


def ask_secret(stack: Stack) -> str:
    command = [sys.executable, "-m", "umrgen_cli.admin", "agents", "webhook-secret", "development"]
    environment = {**os.environ, **stack.environment}
    done = subprocess.run(
        [*command, "--config", str(ROOT / "config.toml")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.strip()


def cancel(stack: Stack, job_id: str) -> None:
    assert stack.http.delete(f"{stack.url}/api/v1/jobs/{job_id}", timeout=30).json()["state"] == "cancelled"


def test_a_web_tier_killed_in_the_middle_of_telling_tells_again_under_the_same_id(
    make_stack: Callable[..., Stack], receiver: Receiver
) -> None:
    stack = make_stack(**OPEN)
    first = stack.start_api()
    job_id = stack.generate(callback_url=receiver.url)
    cancel(stack, job_id)
    wait_until(lambda: len(receiver.heard) == 1, WAIT_S)
    first.stop(signal.SIGKILL)
    receiver.released.set()
    stack.start_api()
    wait_until(lambda: len(receiver.heard) == 2, WAIT_S)
    assert receiver.ids == [f"msg_{job_id}"] * 2
    assert receiver.heard[0][1] == receiver.heard[1][1]
    webhook = Webhook(ask_secret(stack))
    for headers, body in receiver.heard:
        assert webhook.verify(body, headers)["data"] == stack.status(job_id)


def test_a_job_that_ended_as_the_web_tier_died_is_told_of_by_the_next(
    make_stack: Callable[..., Stack], receiver: Receiver
) -> None:
    receiver.released.set()
    stack = make_stack(**OPEN)
    first = stack.start_api()
    job_id = stack.generate(callback_url=receiver.url)
    first.stop(signal.SIGKILL)
    asyncio.run(fail_next(make_settings(stack.data_dir)))
    assert receiver.heard == []
    stack.start_api()
    wait_until(lambda: bool(receiver.heard), WAIT_S)
    headers, body = receiver.heard[0]
    told = Webhook(ask_secret(stack)).verify(body, headers)
    assert (told["type"], told["data"]["job_id"]) == ("job.failed", job_id)


async def fail_next(settings: Settings) -> None:
    """What a worker does to the next job while nobody is there to tell of it."""
    async with open_database(settings, SystemClock()) as database:
        await database.integrity.wait()
        claims = ClaimStore(database, settings)
        claim = await claims.claim_next("tiny-klein", "w")
        assert claim is not None
        await claims.fail(claim, "model_error", "Broken.", retryable=False)
