"""Whether a job is let in: the images it names, and what its agent and the queue have room for.

Everything here runs inside the transaction that inserts the job.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

from umrgen_core.agents import Agent
from umrgen_core.config import Settings
from umrgen_core.database import Database
from umrgen_core.disk import DiskGuard
from umrgen_core.errors import ConcurrentLimit, QueueFull, QuotaExceeded, ReferenceNotFound, Unavailable
from umrgen_core.jobs import JobState
from umrgen_core.run_times import run_time_key
from umrgen_core.sqlite import Connection, Row

DRAINING_RETRY_S = 30.0
"""When to ask again while the queue drains: an upgrade or a restart of the machine takes minutes."""

UNMEASURED_RETRY_S = 2.0
"""When to ask again before any run has been measured."""

_NAMED_FILE = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*://[^/]*)?/(references|outputs)/([^/?#]+)/([^/?#]+)(?:[?#].*)?")


@dataclass(frozen=True, slots=True)
class PinnedImage:
    """An image that a job names: an upload or an earlier output, never both."""

    reference_id: int | None
    output_id: int | None


class Admission:
    """Checks made before a job is inserted. Each raises what the agent is answered."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._statements = database.statements
        self._clock = database.clock
        self._disk = DiskGuard(settings.storage)
        self._queued_jobs = settings.limits.queued_jobs
        self._reference_retention_us = int(settings.storage.reference_retention_s * 1e6)

    def read_room(self, connection: Connection, agent: Agent) -> Row:
        """What the queue and the agent have room for. Raises Unavailable while nothing at all is let in.

        That is while the disk is nearly full or the owner lets the queue run empty.
        """
        self._disk.require_room()
        room: Row = self._statements.get_room(connection, agent_id=agent.id)
        if room["draining_at_us"] is not None:
            raise Unavailable(
                "The owner lets the queue run empty, so no new job is accepted; nothing was written. Try again later.",
                retry_after_s=DRAINING_RETRY_S,
            )
        return room

    def resolve_images(self, connection: Connection, agent: Agent, names: Iterable[str]) -> list[PinnedImage]:
        """The live images that `names` mean, in order, their expiry renewed. Raises ReferenceNotFound."""
        return [self._resolve_image(connection, agent, name) for name in names]

    def _resolve_image(self, connection: Connection, agent: Agent, name: str) -> PinnedImage:
        kind, filename = _parse_name(agent, name)
        statements, now_us = self._statements, self._clock.wall_us()
        if kind in ("references", ""):
            row = statements.find_reference(connection, filename=filename)
            if _is_live(row, agent, now_us):
                renewed_us = now_us + self._reference_retention_us
                statements.renew_reference(connection, id=row["id"], expires_at_us=renewed_us)
                return PinnedImage(row["id"], None)
        if kind in ("outputs", ""):
            row = statements.find_output(connection, filename=filename)
            if _is_live(row, agent, now_us):
                return PinnedImage(None, row["id"])
        raise ReferenceNotFound(name)

    def check_limits(self, connection: Connection, agent: Agent, room: Row) -> None:
        """Raise ConcurrentLimit, QueueFull or QuotaExceeded when there is no room for one more."""
        limits, used = agent.limits, room["used_output_bytes"]
        if room["active"] >= limits.concurrent_jobs:
            raise self._concurrent_limit(connection, agent)
        if room["queued"] >= self._queued_jobs:
            raise QueueFull(
                f"The service holds its limit of {self._queued_jobs} queued jobs. Nothing was accepted; try later.",
                retry_after_s=10,
            )
        if used >= limits.output_bytes:
            raise QuotaExceeded(
                f"Your outputs hold {used} bytes, your limit is {limits.output_bytes}."
                " They are freed as their jobs expire.",
                extra={"quota": "output_bytes", "limit": limits.output_bytes, "used": used},
            )

    def _concurrent_limit(self, connection: Connection, agent: Agent) -> ConcurrentLimit:
        limit = agent.limits.concurrent_jobs
        oldest = self._statements.find_oldest_active(connection, agent_id=agent.id)
        if oldest is None:
            return ConcurrentLimit("Your limit of jobs at a time is 0: ask the owner to raise it.")
        return ConcurrentLimit(
            f"You have your limit of {limit} job(s) queued or running. Poll"
            f" /api/v1/status/{oldest['id']} until it has ended, then submit again.",
            extra={
                "job_id": oldest["id"],
                "state": oldest["state"],
                "progress": render_progress(oldest["step"], oldest["steps"]),
                "limit": limit,
            },
            retry_after_s=self._expected_rest_s(connection, oldest),
        )

    def _expected_rest_s(self, connection: Connection, oldest: Row) -> float:
        names = json.loads(oldest["reference_names"])
        key = run_time_key(oldest["model"], oldest["width"], oldest["height"], oldest["steps"], len(names))
        measured: float | None = self._statements.find_run_time(connection, **key)["mean_s"]
        if measured is None:
            return UNMEASURED_RETRY_S
        if oldest["state"] == JobState.QUEUED:
            return measured
        elapsed_s: float = (self._clock.wall_us() - oldest["started_at_us"]) / 1e6
        return max(measured - elapsed_s, 0.0)


def render_progress(step: int, steps: int) -> dict[str, float]:
    """How far a run is: steps done, steps in all, and the share."""
    return {"step": step, "steps": steps, "fraction": round(step / steps, 4)}


def _parse_name(agent: Agent, name: str) -> tuple[str, str]:
    """Kind ("references", "outputs" or "" for a bare name) and file name. Nothing is ever fetched."""
    if "/" not in name:
        return "", name
    match = _NAMED_FILE.fullmatch(name)
    if match is None or match[2] != agent.session_id:
        raise ReferenceNotFound(name)
    return match[1], match[3]


def _is_live(row: Row | None, agent: Agent, now_us: int) -> bool:
    return row is not None and row["agent_id"] == agent.id and row["expires_at_us"] > now_us
