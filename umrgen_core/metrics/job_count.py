"""How many jobs of each end state are kept: the one figure that takes time with the rows there are.

So it is counted beside everything else, in a thread of its own and seldom: never twice within a minute, and for no more
than a hundredth of the time. Until the first count is done, nothing is told.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from umrgen_core.jobs import JobState
from umrgen_core.sqlite import SqliteError, open_reader

SHORTEST_PAUSE_S = 60.0
SHARE = 0.01
"""Of the time that may be spent on counting."""


class JobCount:
    """Counts when it is asked and the last count is old."""

    def __init__(self, database: Path, statements: Any) -> None:
        self._database = database
        self._statements = statements
        self._counts: Mapping[str, int] = {}
        self._due_s = 0.0
        self._thread: threading.Thread | None = None

    def read_ended(self) -> Mapping[str, int]:
        """The last counts; a new count is begun where it is time for one. Asked by one thread at a time."""
        busy = self._thread is not None and self._thread.is_alive()
        if not busy and time.monotonic() >= self._due_s:
            self._thread = threading.Thread(target=self._count, name="job-count", daemon=True)
            self._thread.start()
        return self._counts

    def _count(self) -> None:
        began = time.monotonic()
        try:
            with closing(open_reader(self._database)) as connection:
                found = {row["state"]: row["jobs"] for row in self._statements.monitor_states(connection)}
        except SqliteError:
            found = None
        ended = [state for state in JobState if state.ended]
        if found is not None:
            self._counts = {state: found.get(state, 0) for state in ended}
        took_s = time.monotonic() - began
        self._due_s = time.monotonic() + max(SHORTEST_PAUSE_S, took_s / SHARE)
