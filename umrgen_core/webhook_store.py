"""The outbox: ends of jobs whose agents have yet to be told of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from umrgen_core.database import Database
from umrgen_core.errors import AccountError
from umrgen_core.rows import to_job
from umrgen_core.sqlite import Connection, Row
from umrgen_core.webhooks import ID_PREFIX, Delivery

MOST_LISTED = 100


class WebhookState(StrEnum):
    """How far the telling has come."""

    DUE = "due"
    """Waits for its first or next attempt, or is being tried."""
    DELIVERED = "delivered"
    """The receiver has said so."""
    FAILED = "failed"
    """Given up: every attempt failed, or the receiver wants no more of them."""


@dataclass(frozen=True, slots=True)
class SecretVersion:
    """What an agent's signing secret is derived from, beside the master."""

    session_id: str
    version: int


class WebhookStore:
    """Rows of `webhooks`."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def adopt(self) -> None:
        """Once at start: what waited when the machine went down is due."""
        boot_id = self._db.clock.boot_id
        if await self._db.reader.one(self._db.statements.find_foreign_webhook.sql, boot_id=boot_id):
            await self._db.writer.run(lambda c: self._db.statements.restart_webhooks(c, boot_id=boot_id))

    async def list_waiting_agents(self) -> list[int]:
        """Agents that something is due for, the one that waits longest first. Only reads."""
        now_ms = self._db.clock.boot_ms()
        rows = await self._db.reader.all(self._db.statements.list_webhook_agents.sql, now_boot_ms=now_ms)
        return [row["agent_id"] for row in rows]

    async def claim(self, shares: Mapping[int, int], lease_s: float) -> list[Delivery]:
        """Begin at most so many attempts for each agent. What is not recorded within `lease_s` falls due again."""

        def work(connection: Connection) -> list[Delivery]:
            now_ms = self._db.clock.boot_ms()
            due = [
                row["job_id"]
                for agent_id, most in shares.items()
                for row in self._db.statements.list_due_webhooks(
                    connection, agent_id=agent_id, now_boot_ms=now_ms, most=most
                )
            ]
            return [self._claim(connection, job_id, now_ms + int(lease_s * 1000)) for job_id in due]

        return await self._db.writer.run(work)

    def _claim(self, connection: Connection, job_id: str, lease_until_ms: int) -> Delivery:
        statements = self._db.statements
        claimed = statements.claim_webhook(
            connection, job_id=job_id, boot_id=self._db.clock.boot_id, lease_until_boot_ms=lease_until_ms
        )
        job = to_job(statements.get_job(connection, id=job_id))
        agent = statements.get_webhook_agent(connection, agent_id=job.agent_id)
        return Delivery(
            job=job,
            callback_url=job.callback_url or "",
            attempts=claimed["attempts"],
            fence=claimed["fence"],
            session_id=agent["session_id"],
            secret_version=agent["webhook_version"],
            secret_rotated_at_us=agent["webhook_rotated_at_us"],
        )

    async def end(self, delivery: Delivery, state: WebhookState, outcome: str) -> None:
        """Nothing more is to be tried. A row that was erased, replayed or claimed anew stays as it is."""

        def work(connection: Connection) -> None:
            self._db.statements.end_webhook(
                connection,
                job_id=delivery.job.id,
                fence=delivery.fence,
                state=state,
                now_us=self._db.clock.wall_us(),
                outcome=outcome,
            )

        await self._db.writer.run(work)
        self._db.meter.webhook_tried(state)

    async def retry(self, delivery: Delivery, delay_s: float, outcome: str) -> None:
        """Try again after `delay_s`. A row that was erased, replayed or claimed anew stays as it is."""

        def work(connection: Connection) -> None:
            clock = self._db.clock
            self._db.statements.retry_webhook(
                connection,
                job_id=delivery.job.id,
                fence=delivery.fence,
                boot_id=clock.boot_id,
                due_boot_ms=clock.boot_ms() + int(delay_s * 1000),
                now_us=clock.wall_us(),
                outcome=outcome,
            )

        await self._db.writer.run(work)
        self._db.meter.webhook_tried("delayed")

    async def list_newest(self, state: WebhookState | None) -> list[Row]:
        """The newest hundred, with their jobs' states and agents' names."""
        return await self._db.reader.all(self._db.statements.list_webhooks.sql, state=state, most=MOST_LISTED)

    async def replay(self, name: str) -> str:
        """Make one webhook due at once, named by itself or its job; the job's id. Raises AccountError."""
        job_id = name.removeprefix(ID_PREFIX)

        def work(connection: Connection) -> str:
            if self._db.statements.replay_webhook(connection, job_id=job_id) is None:
                raise AccountError(f"there is no webhook {name!r}; 'umrgen-admin webhooks list' shows the newest")
            return job_id

        return await self._db.writer.run(work)

    async def replay_failed(self) -> int:
        """Make every webhook that was given up due at once; how many."""
        return await self._db.writer.run(lambda c: len(list(self._db.statements.replay_failed_webhooks(c))))

    async def get_secret_version(self, agent: str, *, rotate: bool = False) -> SecretVersion:
        """What the agent's secret is derived from, after a change where one is asked for. Raises AccountError."""

        def work(connection: Connection) -> SecretVersion:
            statements = self._db.statements
            row = statements.get_agent(connection, name=agent)
            if row is None:
                raise AccountError(f"there is no agent called {agent!r}; 'umrgen-admin agents list' shows them")
            if rotate:
                statements.raise_webhook_version(connection, id=row["id"], now_us=self._db.clock.wall_us())
                row = statements.get_agent(connection, name=agent)
            return SecretVersion(row["session_id"], row["webhook_version"])

        return await self._db.writer.run(work)
