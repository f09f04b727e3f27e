"""The owner's hand on the queue: pause it, let it run empty, let it go on.

Paused, workers claim nothing; what runs ends, and what is posted is accepted and waits. Draining, nothing new
is accepted and what is queued is worked off. The two are apart: a queue may be both, and is then shut. The
state is a row, so it outlives both processes.
"""

from __future__ import annotations

from dataclasses import dataclass

from umrgen_core.database import Database
from umrgen_core.sqlite import Row

MOST_COUNTED = 10_000


@dataclass(frozen=True, slots=True)
class QueueState:
    """Since when the queue is paused and since when it drains, in wall microseconds; None where it is not."""

    paused_at_us: int | None
    draining_at_us: int | None

    @property
    def paused(self) -> bool:
        """Whether workers claim nothing."""
        return self.paused_at_us is not None

    @property
    def draining(self) -> bool:
        """Whether nothing new is accepted."""
        return self.draining_at_us is not None


@dataclass(frozen=True, slots=True)
class AgentQueue:
    """What one agent has waiting, and the job that came first."""

    agent: str
    jobs: int
    oldest_id: str
    oldest_at_us: int


class QueueControl:
    """Reads and changes the state. Every change is answered with the state as it then stands, and may be repeated.

    Whoever resumes the queue wakes the workers too (`Wakeup.send(Listener.INFER, "queued")`): else they look
    only at their next poll.
    """

    def __init__(self, database: Database) -> None:
        self._db = database

    async def read(self) -> QueueState:
        """The state now. Raises Unavailable."""
        row = await self._db.reader.one(self._db.statements.get_queue_control.sql)
        return QueueState(None, None) if row is None else _to_state(row)

    async def pause(self) -> QueueState:
        """Claim nothing more. Raises Unavailable."""
        statements, now_us = self._db.statements, self._db.clock.wall_us()
        return _to_state(await self._db.writer.run(lambda c: statements.pause_queue(c, now_us=now_us)))

    async def drain(self) -> QueueState:
        """Accept nothing more. Raises Unavailable."""
        statements, now_us = self._db.statements, self._db.clock.wall_us()
        return _to_state(await self._db.writer.run(lambda c: statements.drain_queue(c, now_us=now_us)))

    async def resume(self) -> QueueState:
        """Claim and accept again. Raises Unavailable."""
        return _to_state(await self._db.writer.run(self._db.statements.resume_queue))

    async def list_agents(self, most: int = MOST_COUNTED) -> list[AgentQueue]:
        """Whose jobs wait, the longest queue first, counted over no more than `most` queued jobs."""
        rows = await self._db.reader.all(self._db.statements.list_waiting_agents.sql, most=most)
        return [AgentQueue(**dict(row)) for row in rows]


def _to_state(row: Row) -> QueueState:
    return QueueState(row["paused_at_us"], row["draining_at_us"])
