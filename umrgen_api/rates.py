"""Requests a minute for each agent, in memory: a restart forgives."""

from __future__ import annotations

import time
from enum import StrEnum

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from umrgen_core.agents import Agent
from umrgen_core.errors import RateLimit


class Rate(StrEnum):
    """Which budget a request is taken from."""

    WRITE = "write"
    """Generates and uploads."""
    READ = "read"
    """Everything else."""


class _PerMinute(RateLimitItemPerMinute):
    """Counted under the agent alone: keys with different limits draw on one budget."""

    def key_for(self, *identifiers: bytes | str | float) -> str:
        return "/".join(map(str, identifiers))


class RateLimits:
    """Counts requests over a sliding minute."""

    def __init__(self) -> None:
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())

    def take_failure(self, prefix: str, per_minute: int) -> None:
        """Count a refused key from the network `prefix`. Raises RateLimit when there were too many."""
        if per_minute <= 0 or self._limiter.hit(_PerMinute(per_minute), "failure", prefix):
            return
        raise RateLimit(
            "Too many requests without a valid key came from your network. Wait, then send a valid key.",
            extra={"limit": per_minute, "kind": "failure"},
            retry_after_s=60.0,
        )

    def take(self, agent: Agent, rate: Rate) -> None:
        """Count one request. Raises RateLimit, with the time to wait, when the minute is used up."""
        per_minute = agent.limits.rate_per_minute if rate is Rate.WRITE else agent.limits.reads_per_minute
        item = _PerMinute(max(per_minute, 1))
        if per_minute > 0 and self._limiter.hit(item, rate, str(agent.id)):
            return
        reset_s = self._limiter.get_window_stats(item, rate, str(agent.id)).reset_time - time.time()
        raise RateLimit(
            f"You may make {per_minute} {'generates and uploads' if rate is Rate.WRITE else 'reads'} a minute."
            " Wait as long as retry_after says.",
            extra={"limit": per_minute, "kind": rate.value},
            retry_after_s=min(max(reset_s, 1.0), 60.0),
        )
