"""Tells agents of the ends of their jobs: claims what is due, signs it, sends it, and records what came of it.

A claim is a lease: what a killed web tier had under way falls due again. So a webhook arrives at least once.
"""

from __future__ import annotations

import asyncio
import random
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress

import structlog

from umrgen_api.webhook_message import render_body, sign
from umrgen_api.webhook_sender import Outcome, Sender
from umrgen_core.config import Settings
from umrgen_core.database import Database
from umrgen_core.errors import ConfigError, SchemaError, Unavailable
from umrgen_core.logs import get_logger, log_death
from umrgen_core.webhook_secrets import read_master
from umrgen_core.webhook_store import WebhookState, WebhookStore
from umrgen_core.webhooks import Delivery, choose_delay_s

POLL_S = 1.0
UNSIGNED_PAUSE_S = 60.0
"""How long to wait where the secret file cannot be used."""
STOP_GRACE_S = 5.0
AGENT_SHARE = 4
"""One agent has at most this fraction of the attempts under way: a slow receiver holds up its own agent's."""

LOG = get_logger("webhooks")


class Deliveries:
    """Owns the task that claims, and the attempts under way."""

    def __init__(
        self, settings: Settings, database: Database, sender: Sender, draw: Callable[[], float] = random.random
    ) -> None:
        self._settings = settings
        self._database = database
        self._store = WebhookStore(database)
        self._sender = sender
        self._draw = draw
        self._master: bytes | None = None
        self._woken = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None
        self._under_way: dict[asyncio.Task[None], int] = {}

    def start(self) -> None:
        """Begin."""
        self._loop = asyncio.create_task(self._run())
        self._loop.add_done_callback(log_death)

    async def stop(self) -> None:
        """Begin nothing more; end what is under way, in good order where that is quick."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.wait({self._loop})
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=STOP_GRACE_S)
        for task in tuple(self._under_way):
            task.cancel()
            await asyncio.wait({task})

    def wake(self) -> None:
        """Some job has changed."""
        self._woken.set()

    async def _run(self) -> None:
        try:
            await self._database.integrity.wait()
        except SchemaError:  # logged where it was found; nothing can be written
            return
        adopted = False
        while True:
            pause_s = POLL_S
            try:
                if not adopted:
                    await self._store.adopt()
                    adopted = True
                if await self.begin_due():
                    continue
            except ConfigError as error:
                LOG.error("webhooks_unsigned", error=error.message)  # noqa: TRY400 - the message is the whole story
                pause_s = UNSIGNED_PAUSE_S
            except Unavailable as error:
                LOG.warning("webhooks_delayed", error=error.message)
            await self._rest(pause_s)

    async def _rest(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        self._woken.clear()

    async def begin_due(self) -> int:
        """Begin as many attempts as are due and there is room for; how many. Raises ConfigError or Unavailable."""
        if len(self._under_way) >= self._settings.webhooks.concurrent_attempts:
            return 0
        waiting = await self._store.list_waiting_agents()
        shares = self._share(waiting)
        if not shares:
            return 0
        master = await self._get_master()
        claimed = await self._store.claim(shares, self._lease_s)
        for delivery in claimed:
            task = asyncio.create_task(self._attempt(delivery, master))
            self._under_way[task] = delivery.job.agent_id
            task.add_done_callback(self._end)
        return len(claimed)

    async def settle(self) -> None:
        """Wait for the attempts under way."""
        if self._under_way:
            await asyncio.wait(self._under_way)

    @property
    def _lease_s(self) -> float:
        return self._settings.webhooks.timeout_s + 2 * self._settings.storage.lock_timeout_s

    def _share(self, waiting: Sequence[int]) -> dict[int, int]:
        """How many attempts each agent may begin, those with the fewest under way first."""
        total = self._settings.webhooks.concurrent_attempts
        most, used, shares = max(1, total // AGENT_SHARE), Counter(self._under_way.values()), Counter[int]()
        for _ in range(total - len(self._under_way)):
            hungry = [agent for agent in waiting if used[agent] < most]
            if not hungry:
                break
            agent = min(hungry, key=lambda one: used[one])
            used[agent] += 1
            shares[agent] += 1
        return dict(shares)

    async def _get_master(self) -> bytes:
        if self._master is None:
            self._master = await asyncio.to_thread(read_master, self._settings.secret_path)
        return self._master

    def _end(self, task: asyncio.Task[None]) -> None:
        del self._under_way[task]
        log_death(task)
        self.wake()

    async def _attempt(self, delivery: Delivery, master: bytes) -> None:
        structlog.contextvars.bind_contextvars(
            job_id=delivery.job.id, request_id=delivery.job.request_id, attempt=delivery.attempts
        )
        begun = time.perf_counter()
        outcome = await self._tell(delivery, master)
        duration_s = round(time.perf_counter() - begun, 6)
        try:
            await self._record(delivery, outcome, duration_s)
        except Unavailable as error:  # the lease will end, and it is tried again
            LOG.warning("webhooks_delayed", error=error.message)

    async def _tell(self, delivery: Delivery, master: bytes) -> Outcome:
        """Sign and send. An error of our own is an outcome too: it counts, and the next attempt waits its turn."""
        try:
            body = render_body(delivery, self._settings.api.public_url)
            headers = sign(delivery, body, master, self._database.clock.wall_us())
            return await self._sender.post(delivery.callback_url, headers, body)
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not be tried without end
            # Where it was and what kind: the error's own words may hold the URL, which no log may.
            where = "".join(traceback.format_tb(error.__traceback__))
            LOG.error("internal_error", error_type=type(error).__name__, where=where)  # noqa: TRY400
            return Outcome(None, "internal error")

    async def _record(self, delivery: Delivery, outcome: Outcome, duration_s: float) -> None:
        """Note what came of an attempt. Raises Unavailable."""
        if outcome.accepted:
            await self._store.end(delivery, WebhookState.DELIVERED, outcome.text)
            LOG.info("webhook_delivered", outcome=outcome.text, duration_s=duration_s)
            return
        delay_s = None if outcome.gone else choose_delay_s(delivery.attempts, self._draw)
        if delay_s is None:
            await self._store.end(delivery, WebhookState.FAILED, outcome.text)
            LOG.warning("webhook_given_up", outcome=outcome.text, duration_s=duration_s)
            return
        await self._store.retry(delivery, delay_s, outcome.text)
        LOG.info("webhook_delayed", outcome=outcome.text, duration_s=duration_s)
