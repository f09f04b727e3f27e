"""Files that no row names: deleted when seen twice, further apart than any deadline.

A file is published before its row, so a young orphan may still get one; one that is older than every
deadline never will.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import islice

from umrgen_api.services import Services
from umrgen_core.files import Shelf
from umrgen_core.logs import get_logger

FILES_PER_ROUND = 500

LOG = get_logger("orphans")


class OrphanSweep:
    """Walks the shelves again and again, a bounded number of files in a round."""

    def __init__(self, services: Services) -> None:
        self._services = services
        settings = services.settings
        uploads = settings.uploads
        run_s = settings.jobs.deadline_s + settings.jobs.lease_s
        upload_s = settings.api.body_timeout_s + uploads.timeout_s * (1 + uploads.waiting / uploads.processes)
        longest_s = max(run_s, upload_s)
        self._age_ms = int((longest_s + settings.storage.orphan_margin_s) * 1000)
        self._before: dict[tuple[Shelf, str], int] = {}
        self._now: dict[tuple[Shelf, str], int] = {}
        self._walk: Iterator[tuple[Shelf, str]] = iter(())

    async def sweep(self) -> None:
        """Look at the next files."""
        batch = await asyncio.to_thread(lambda: list(islice(self._walk, FILES_PER_ROUND)))
        if not batch:  # the walk is over: what it did not see again is forgotten
            self._before, self._now = self._now, {}
            self._walk = self._services.files.walk()
        for shelf, name in batch:
            await self._consider(shelf, name)

    async def _consider(self, shelf: Shelf, name: str) -> None:
        key = (shelf, name)
        if await self._services.retention.is_named(shelf, name):
            return
        now_ms = self._services.clock.boot_ms()
        first_ms = self._before.get(key, now_ms)
        if now_ms - first_ms <= self._age_ms:
            self._now[key] = first_ms
            return
        await asyncio.to_thread(self._services.files.delete, shelf, name)
        LOG.info("orphan_deleted", shelf=shelf.value, disk_name=name)
