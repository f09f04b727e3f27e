"""Mutant: the row is committed before the file is published."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

from tests.faults.mutants.null_hand import run
from umrgen_core.claim_store import ClaimStore
from umrgen_core.files import FileStore, Published, Shelf

_waiting: dict[str, tuple[FileStore, Shelf, bytes]] = {}
_publish = FileStore.publish_bytes
_complete = ClaimStore.complete


def _publish_later(self: FileStore, shelf: Shelf, disk_name: str, content: bytes) -> Published:
    _waiting[disk_name] = (self, shelf, content)
    return Published(disk_name, len(content), hashlib.sha256(content).hexdigest())


async def _complete_first(self: ClaimStore, claim: Any, output: Any, *rest: Any) -> None:
    await _complete(self, claim, output, *rest)
    files, shelf, content = _waiting.pop(output.disk_name)
    await asyncio.to_thread(_publish, files, shelf, output.disk_name, content)


if __name__ == "__main__":
    FileStore.publish_bytes = _publish_later  # type: ignore[method-assign]
    ClaimStore.complete = _complete_first  # type: ignore[method-assign]
    run()
