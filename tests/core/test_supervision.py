"""Which signs of life a process gives, and which it withholds."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import pytest

from umrgen_core.agents import Agent
from umrgen_core.database import Database
from umrgen_core.job_store import JobStore
from umrgen_core.names import new_job_id
from umrgen_core.queue_control import QueueControl
from umrgen_core.requests import AcceptedRequest
from umrgen_core.supervision import MOST_COUNTED, Supervision, Work
from umrgen_core.systemd import Notifier

WAIT_S = 10.0


class Recorded(Notifier):
    """Keeps what it would have said."""

    def __init__(self, watchdog_s: float) -> None:
        super().__init__()
        self.watchdog_s = watchdog_s
        self.said: list[str] = []
        self.changed = asyncio.Event()

    @property
    def is_heard(self) -> bool:
        return True

    def _send(self, message: str) -> None:
        self.said.append(message)
        self.changed.set()


@pytest.fixture
async def live(database: Database) -> AsyncIterator[Callable[[Recorded], None]]:
    tasks: list[asyncio.Task[None]] = []

    def begin(notifier: Recorded) -> None:
        tasks.append(asyncio.create_task(Supervision(notifier, database).live(lambda work: work.queue)))

    yield begin
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def wait_for(notifier: Recorded, test: Callable[[list[str]], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not test(notifier.said):
            notifier.changed.clear()
            await notifier.changed.wait()


@pytest.mark.parametrize(
    ("work", "words"),
    [
        (Work(0, 0), "queue empty"),
        (Work(2, 12), "queue 12"),
        (Work(0, MOST_COUNTED, paused=True), f"queue {MOST_COUNTED}+, paused"),
        (Work(0, 0, paused=True, draining=True), "queue empty, paused, draining"),
    ],
)
def test_the_queue_is_told_in_words(work: Work, words: str) -> None:
    assert work.queue == words


async def test_the_line_of_status_follows_the_store(
    database: Database, live: Callable[[Recorded], None], jobs: JobStore, make_agent: Callable[..., Awaitable[Agent]]
) -> None:
    notifier = Recorded(0.2)
    live(notifier)
    await wait_for(notifier, lambda said: "STATUS=queue empty" in said)
    request = AcceptedRequest("tiny-klein", "a star", "", 64, 64, 4, 1, (), ())
    await jobs.enqueue(await make_agent("alice"), new_job_id(), request, "r")
    await wait_for(notifier, lambda said: "STATUS=queue 1" in said)
    await QueueControl(database).pause()
    await wait_for(notifier, lambda said: "STATUS=queue 1, paused" in said)


async def test_a_process_that_keeps_the_store_shut_gives_no_sign_of_life(
    database: Database, live: Callable[[Recorded], None]
) -> None:
    release = threading.Event()
    stuck = asyncio.create_task(database.writer.run(lambda _: release.wait(WAIT_S)))
    try:
        while database.writer.held_s <= 0.2:  # noqa: ASYNC110 - another thread holds it
            await asyncio.sleep(0.01)
        notifier = Recorded(0.2)
        live(notifier)
        await wait_for(notifier, lambda said: "STATUS=queue empty" in said)  # it reads on
        assert "WATCHDOG=1" not in notifier.said
    finally:
        release.set()
        await stuck
    await wait_for(notifier, lambda said: "WATCHDOG=1" in said)
    assert database.writer.held_s == 0


async def test_a_store_that_others_keep_shut_is_no_reason_to_end(
    database: Database, live: Callable[[Recorded], None]
) -> None:
    database.reader.refuse("The store is being upgraded.")
    notifier = Recorded(0.2)
    live(notifier)
    await wait_for(notifier, lambda said: said.count("WATCHDOG=1") > 2)
    assert "STATUS=The store is being upgraded." in notifier.said
