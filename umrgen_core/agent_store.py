"""Agents and keys in the store."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from umrgen_core.agents import DEFAULT_SCOPES, Agent, to_agent
from umrgen_core.database import Database
from umrgen_core.keys import digest_key
from umrgen_core.reader import fetch_one
from umrgen_core.sections import LimitSettings
from umrgen_core.sqlite import Connection, Row

DEVELOPMENT_AGENT = "development"
DEVELOPMENT_SESSION = "sid_ext_gen"
DEVELOPMENT_KEY_NAME = "development"
NO_DIGEST = "0" * 64
"""Compared with where the store knows no such key; no key is known to have it."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A live key that was named by its number: its agent, and what the store holds of the key."""

    agent: Agent
    sha256: str


class AgentStore:
    """Looks keys up and makes agents."""

    def __init__(self, database: Database, defaults: LimitSettings) -> None:
        self._db = database
        self._defaults = defaults

    async def find_by_key(self, key: str) -> Agent | None:
        """The agent of a key that is live now, or None.

        An unknown key costs the same digest, statement and comparison as any other.
        """
        found = await self.find_by_key_and(key, lambda _connection, _agent: None)
        return None if found is None else found[0]

    async def find_by_key_and(self, key: str, look: Callable[[Connection, Agent], T]) -> tuple[Agent, T] | None:
        """The same, and in the same hop what `look` then reads on the agent's behalf. It is asked of live keys only."""
        digest = digest_key(key)

        def work(connection: Connection) -> tuple[Agent, T] | None:
            row = fetch_one(connection, self._db.statements.find_key.sql, sha256=digest)
            stored = NO_DIGEST if row is None else row["sha256"]
            same = hmac.compare_digest(stored.encode(), digest.encode())
            if row is None or not same or not self._is_live(row):
                return None
            agent = to_agent(row, self._defaults)
            return agent, look(connection, agent)

        return await self._db.reader.run(work)

    async def find_by_key_id(self, key_id: int) -> KnownKey | None:
        """The agent of a key that is live now, by the key's number; None where it is not."""
        row = await self._db.reader.one(self._db.statements.find_key_by_id.sql, id=key_id)
        if row is None or not self._is_live(row):
            return None
        return KnownKey(to_agent(row, self._defaults), row["sha256"])

    def _is_live(self, row: Row) -> bool:
        expires_at_us: int | None = row["expires_at_us"]
        expired = expires_at_us is not None and expires_at_us <= self._db.clock.wall_us()
        return row["revoked_at_us"] is None and not expired

    async def get_usage(self, agent: Agent) -> dict[str, int]:
        """What an agent keeps: references, their bytes, and bytes of outputs."""
        row = await self._db.reader.one(self._db.statements.get_usage.sql, agent_id=agent.id)
        names = ("references", "reference_bytes", "output_bytes")
        return {name: 0 if row is None else row[f"used_{name}"] for name in names}

    async def create_agent(self, name: str, session_id: str, key: str, scopes: str = " ".join(DEFAULT_SCOPES)) -> int:
        """An agent with its first key; the agent's id. The key itself is not kept."""

        def work(connection: Connection) -> int:
            return self._put_agent(connection, name, session_id, "first", key, scopes)

        return await self._db.writer.run(work)

    async def set_development_key(self, key: str) -> None:
        """Make `key` the one development key; an empty one ends them all."""

        def work(connection: Connection) -> None:
            agent_id = self._put_agent(
                connection, DEVELOPMENT_AGENT, DEVELOPMENT_SESSION, DEVELOPMENT_KEY_NAME, key, " ".join(DEFAULT_SCOPES)
            )
            self._db.statements.revoke_other_keys(
                connection,
                agent_id=agent_id,
                name=DEVELOPMENT_KEY_NAME,
                sha256=digest_key(key) if key else "",
                now_us=self._db.clock.wall_us(),
            )

        await self._db.writer.run(work)

    def _put_agent(
        self, connection: Connection, name: str, session_id: str, key_name: str, key: str, scopes: str
    ) -> int:
        statements, now_us = self._db.statements, self._db.clock.wall_us()
        row = statements.insert_agent(connection, name=name, session_id=session_id, now_us=now_us)
        if row is None:
            row = statements.find_agent(connection, session_id=session_id)
        agent_id: int = row["id"]
        if key:
            statements.put_key(
                connection,
                agent_id=agent_id,
                name=key_name,
                sha256=digest_key(key),
                scopes=scopes,
                now_us=now_us,
                expires_at_us=None,
            )
        return agent_id
