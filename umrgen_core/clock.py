"""The two clocks: boot time decides, wall time is only shown.

CLOCK_BOOTTIME never leaps and counts through suspend, but starts anew with each boot, so every
instant taken from it is kept beside the boot id.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Clock(Protocol):
    """What every part that needs the time is given."""

    @property
    def boot_id(self) -> str:
        """Identity of this boot of the machine."""

    def wall_us(self) -> int:
        """Microseconds since 1970, UTC. For display and retention only."""

    def boot_ms(self) -> int:
        """Milliseconds since boot, suspend included. For leases and deadlines."""


class SystemClock:
    """The machine's own clocks."""

    def __init__(self) -> None:
        self._boot_id = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()

    @property
    def boot_id(self) -> str:
        """Identity of this boot of the machine."""
        return self._boot_id

    def wall_us(self) -> int:
        """Microseconds since 1970, UTC."""
        return time.time_ns() // 1000

    def boot_ms(self) -> int:
        """Milliseconds since boot, suspend included."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


class LeapWatch:
    """Notices when wall time leaps against boot time."""

    def __init__(self, clock: Clock, tolerance_s: float) -> None:
        self._clock = clock
        self._tolerance_us = int(tolerance_s * 1e6)
        self._offset_us = self._measure()

    def has_leapt(self) -> bool:
        """Whether the clocks now differ from each other by more than they did at the start."""
        return abs(self._measure() - self._offset_us) > self._tolerance_us

    def _measure(self) -> int:
        return self._clock.wall_us() - self._clock.boot_ms() * 1000


def format_time(us: int) -> str:
    """Wall microseconds as RFC 3339 UTC with six decimals and Z."""
    moment = _EPOCH + timedelta(microseconds=us)
    return moment.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"
