"""The lock that every write transaction of every process holds.

SQLite's own busy timeout starves the second writing process; a blocking flock does not.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK_NAME = "store.lock"


class StoreLock:
    """An flock on one file of the data directory. The descriptor is close-on-exec."""

    def __init__(self, data_dir: Path) -> None:
        self._fd = os.open(data_dir / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock; blocks until it is free, so call it in a thread that may block."""
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._fd)
