"""The check of the database after an unclean stop: nothing is written until it has passed."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from enum import StrEnum
from pathlib import Path

from umrgen_core.errors import SchemaError
from umrgen_core.logs import get_logger
from umrgen_core.presence import Presence, check_integrity
from umrgen_core.writer import Writer

LOG = get_logger("integrity")


class IntegrityState(StrEnum):
    """What is known of the database."""

    CHECKING = "checking"
    """The last stop was unclean; the check runs."""
    GOOD = "good"
    """Left in good order, or checked."""
    DAMAGED = "damaged"
    """The check failed: no writes until the owner restores a backup."""


class Integrity:
    """Checks the database in a thread where the last stop was unclean."""

    def __init__(self, database: Path, presence: Presence, writer: Writer) -> None:
        self._database = database
        self._presence = presence
        self._writer = writer
        self._task: asyncio.Task[None] | None = None
        self.state = IntegrityState.GOOD
        self.problem: str | None = None

    @property
    def is_checking(self) -> bool:
        """Whether the check is still running."""
        return self.state is IntegrityState.CHECKING

    def start(self) -> None:
        """Begin the check if some process ended without a clean stop."""
        abandoned = self._presence.list_abandoned()
        if not abandoned:
            return
        LOG.warning("unclean_stop_found", markers=len(abandoned))
        self.state = IntegrityState.CHECKING
        self._writer.refuse("The store is being checked after an unclean stop. Try again shortly.")
        self._task = asyncio.create_task(self._check(abandoned))

    async def wait(self) -> None:
        """Return when the database is good. Raises SchemaError with the way out when it is damaged."""
        if self._task is not None:
            await asyncio.shield(self._task)
        if self.problem is not None:
            raise SchemaError(self.problem)

    async def close(self) -> None:
        """Stop waiting for the check."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _check(self, abandoned: list[Path]) -> None:
        try:
            await asyncio.to_thread(check_integrity, self._database)
        except SchemaError as error:
            self.state, self.problem = IntegrityState.DAMAGED, error.message
            self._writer.refuse("The store is damaged and takes no writes until its owner has restored it.")
            LOG.error("store_damaged", error=error.message)  # noqa: TRY400 - the message is the whole story
            return
        self._presence.forget(abandoned)
        self.state = IntegrityState.GOOD
        self._writer.refuse(None)
        LOG.info("store_checked")
