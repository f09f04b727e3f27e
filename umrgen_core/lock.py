"""The lock that every write transaction of every process holds.

SQLite's own busy timeout starves the second writing process; a blocking flock does not.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from umrgen_core.errors import Unavailable

LOCK_NAME = "store.lock"


class StoreLock:
    """An flock on one file of the data directory. The descriptor is close-on-exec."""

    def __init__(self, data_dir: Path) -> None:
        self._fd = os.open(data_dir / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    @contextmanager
    def held(self, timeout_s: float | None = None) -> Iterator[None]:
        """Hold the lock; blocks until it is free, so call it in a thread that may block.

        With `timeout_s` raises Unavailable when it is not free by then.
        """
        if timeout_s is None:
            fcntl.flock(self._fd, fcntl.LOCK_EX)
        else:
            self._take_within(timeout_s)
        try:
            yield
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def _take_within(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                return fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Unavailable(f"another process has held the store's lock for {timeout_s:g} s") from None
            time.sleep(0.005)

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._fd)
