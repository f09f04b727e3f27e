"""Agents and their keys as the owner of the box manages them."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from umrgen_core.agent_store import DEVELOPMENT_AGENT, DEVELOPMENT_KEY_NAME
from umrgen_core.agents import ALWAYS_CHECKED, Scope
from umrgen_core.database import Database
from umrgen_core.errors import AccountError
from umrgen_core.keys import digest_key, mint_key
from umrgen_core.sqlite import Connection, Row


class Limit(StrEnum):
    """A limit that an agent or a key may have of its own; values are columns."""

    CONCURRENT_JOBS = "concurrent_jobs"
    """Jobs queued or running at a time."""
    RATE = "rate_per_minute"
    """Generates and uploads a minute."""
    READS = "reads_per_minute"
    """Other requests a minute."""
    REFERENCES = "reference_limit"
    """References kept."""
    REFERENCE_BYTES = "reference_bytes_limit"
    """Bytes of references kept."""
    OUTPUT_BYTES = "output_bytes_limit"
    """Bytes of outputs kept."""


AGENT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""What an agent may be called."""

Limits = Mapping[Limit, int | None]
"""None takes a limit away: an agent's default applies again, a key narrows no more."""


@dataclass(frozen=True, slots=True)
class MintedKey:
    """A new key: shown once, since the store keeps only its digest."""

    id: int
    agent: str
    key: str


class Accounts:
    """What `umrgen-admin agents` and `umrgen-admin keys` do. Every method raises AccountError for bad names."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def create_agent(self, name: str, limits: Limits) -> str:
        """A new agent; its session id."""
        if name == DEVELOPMENT_AGENT:
            raise AccountError(f"{name!r} is the agent of [auth] development_key; choose another name")
        session_id = f"sid_ext_{secrets.token_hex(12)}"

        def work(connection: Connection) -> str:
            row = self._db.statements.insert_agent(
                connection, name=name, session_id=session_id, now_us=self._db.clock.wall_us()
            )
            if row is None:
                raise AccountError(f"there is an agent called {name!r} already")
            self._put_limits(
                connection, self._get_agent(connection, name), limits, self._db.statements.set_agent_limits
            )
            return session_id

        return await self._db.writer.run(work)

    async def set_agent_limits(self, name: str, limits: Limits) -> None:
        """Change the limits that are named; the others stay."""

        def work(connection: Connection) -> None:
            agent = self._get_agent(connection, name)
            self._put_limits(connection, agent, limits, self._db.statements.set_agent_limits)

        await self._db.writer.run(work)

    async def set_safety_off(self, name: str, off: Iterable[str]) -> None:
        """Name the categories of blocked keywords that are not checked for an agent."""
        names = sorted(set(off))
        if ALWAYS_CHECKED in names:
            raise AccountError(f"the category {ALWAYS_CHECKED!r} cannot be switched off")

        def work(connection: Connection) -> None:
            agent = self._get_agent(connection, name)
            self._db.statements.set_safety_off(connection, id=agent["id"], safety_off=" ".join(names))

        await self._db.writer.run(work)

    async def create_key(
        self, agent: str, name: str, scopes: Iterable[Scope], expires_at_us: int | None, limits: Limits
    ) -> MintedKey:
        """A further key of an agent; its limits may only narrow the agent's."""

        def work(connection: Connection) -> MintedKey:
            row = self._get_agent(connection, agent)
            minted = self._mint(connection, row["id"], agent, name, " ".join(scopes), expires_at_us)
            self._put_limits(
                connection, self._get_key(connection, minted.id), limits, self._db.statements.set_key_limits
            )
            return minted

        return await self._db.writer.run(work)

    async def rotate_key(self, key_id: int, grace_s: float) -> MintedKey:
        """A new key like an old one, which goes on for `grace_s` seconds."""

        def work(connection: Connection) -> MintedKey:
            old = self._get_own_key(connection, key_id)
            if old["revoked_at_us"] is not None:
                raise AccountError(f"key {key_id} has been revoked; create a new one instead")
            minted = self._mint(
                connection, old["agent_id"], old["agent_name"], old["name"], old["scopes"], old["expires_at_us"]
            )
            limits: Limits = {limit: old[limit] for limit in Limit}
            self._put_limits(
                connection, self._get_key(connection, minted.id), limits, self._db.statements.set_key_limits
            )
            until_us = self._db.clock.wall_us() + int(grace_s * 1e6)
            self._db.statements.expire_key(connection, id=key_id, expires_at_us=until_us)
            return minted

        return await self._db.writer.run(work)

    async def revoke_key(self, key_id: int) -> None:
        """End a key at once: the next request with it is answered 401."""

        def work(connection: Connection) -> None:
            self._get_own_key(connection, key_id)
            self._db.statements.revoke_key(connection, id=key_id, now_us=self._db.clock.wall_us())

        await self._db.writer.run(work)

    async def list_agents(self) -> list[Row]:
        """Every agent with its own limits, usage and number of live keys."""
        return await self._db.reader.all(self._db.statements.list_agents.sql, now_us=self._db.clock.wall_us())

    async def list_keys(self) -> list[Row]:
        """Every key, without the key."""
        return await self._db.reader.all(self._db.statements.list_keys.sql)

    def _mint(
        self, connection: Connection, agent_id: int, agent: str, name: str, scopes: str, expires_at_us: int | None
    ) -> MintedKey:
        key = mint_key()
        row = self._db.statements.insert_key(
            connection,
            agent_id=agent_id,
            name=name,
            sha256=digest_key(key),
            scopes=scopes,
            now_us=self._db.clock.wall_us(),
            expires_at_us=expires_at_us,
        )
        return MintedKey(row["id"], agent, key)

    def _get_agent(self, connection: Connection, name: str) -> Row:
        row: Row | None = self._db.statements.get_agent(connection, name=name)
        if row is None:
            raise AccountError(f"there is no agent called {name!r}; 'umrgen-admin agents list' shows them")
        return row

    def _get_key(self, connection: Connection, key_id: int) -> Row:
        row: Row | None = self._db.statements.get_key(connection, id=key_id)
        if row is None:
            raise AccountError(f"there is no key {key_id}; 'umrgen-admin keys list' shows them")
        return row

    def _get_own_key(self, connection: Connection, key_id: int) -> Row:
        """A key that is managed here and not by the configuration."""
        row = self._get_key(connection, key_id)
        if row["agent_name"] == DEVELOPMENT_AGENT and row["name"] == DEVELOPMENT_KEY_NAME:
            raise AccountError('this is the development key: set [auth] development_key = "" and restart the web tier')
        return row

    def _put_limits(self, connection: Connection, row: Row, limits: Limits, put: Any) -> None:
        values = {limit.value: limits.get(limit, row[limit.value]) for limit in Limit}
        put(connection, id=row["id"], **values)
