"""Requests a minute for each agent, in memory: a restart forgives."""

from __future__ import annotations

import time
from enum import StrEnum

from umrgen_core.agents import Agent
from umrgen_core.errors import RateLimit

MINUTE_S = 60.0


class Rate(StrEnum):
    """Which budget a request is taken from."""

    WRITE = "write"
    """Generates and uploads."""
    READ = "read"
    """Everything else."""


class _Minutes:
    """Counts of this minute and of the last, which fades out as this one passes: together about the last 60 seconds.

    Nothing older is kept, so no stranger can fill the memory. A leap of the clock forgives.
    """

    def __init__(self) -> None:
        self._minute = 0
        self._counts: dict[tuple[str, str], int] = {}
        self._last: dict[tuple[str, str], int] = {}

    def hit(self, kind: str, whose: str, per_minute: int) -> float | None:
        """Count one; or, where `per_minute` are used up, count none and give the seconds until one is free."""
        minute, passed_s = divmod(time.time(), MINUTE_S)
        if minute != self._minute:
            self._last = self._counts if minute == self._minute + 1 else {}
            self._counts, self._minute = {}, int(minute)
        key = (kind, whose)
        count, last = self._counts.get(key, 0), self._last.get(key, 0)
        if count + last * (1 - passed_s / MINUTE_S) < per_minute:
            self._counts[key] = count + 1
            return None
        if count < per_minute:  # in this minute, when enough of the last one has faded
            return MINUTE_S * (1 - (per_minute - count) / last) - passed_s
        return MINUTE_S * (2 - per_minute / count) - passed_s


class RateLimits:
    """Counts requests over a sliding minute."""

    def __init__(self) -> None:
        self._minutes = _Minutes()

    def take_failure(self, prefix: str, per_minute: int) -> None:
        """Count a refused key from the network `prefix`. Raises RateLimit when there were too many."""
        if per_minute <= 0 or self._minutes.hit("failure", prefix, per_minute) is None:
            return
        raise RateLimit(
            "Too many requests without a valid key came from your network. Wait, then send a valid key.",
            extra={"limit": per_minute, "kind": "failure"},
            retry_after_s=MINUTE_S,
        )

    def take(self, agent: Agent, rate: Rate) -> None:
        """Count one request. Raises RateLimit, with the time to wait, when the minute is used up."""
        per_minute = agent.limits.rate_per_minute if rate is Rate.WRITE else agent.limits.reads_per_minute
        # The agent alone is counted: its keys, with whatever limits of their own, draw on one budget.
        reset_s = self._minutes.hit(rate, str(agent.id), per_minute) if per_minute > 0 else MINUTE_S
        if reset_s is None:
            return
        raise RateLimit(
            f"You may make {per_minute} {'generates and uploads' if rate is Rate.WRITE else 'reads'} a minute."
            " Wait as long as retry_after says.",
            extra={"limit": per_minute, "kind": rate.value},
            retry_after_s=min(max(reset_s, 1.0), MINUTE_S),
        )
