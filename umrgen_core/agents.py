"""Who may do what, and how much of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from umrgen_core.sections import LimitSettings
from umrgen_core.sqlite import Row


class Scope(StrEnum):
    """What a key may be used for."""

    UPLOAD = "upload"
    """Upload and delete references."""
    GENERATE = "generate"
    """Submit and cancel jobs."""
    READ = "read"
    """Everything that changes nothing."""
    ADMIN = "admin"
    """The owner's pages of the console; no key has it unless it is named when the key is made."""


DEFAULT_SCOPES = (Scope.UPLOAD, Scope.GENERATE, Scope.READ)
"""Of a key for which nothing else is said."""


ALWAYS_CHECKED = "minors"
"""The category of blocked keywords that cannot be switched off."""
SHIPPED_CATEGORIES = ("hate", ALWAYS_CHECKED, "sexual", "violence")


@dataclass(frozen=True, slots=True)
class AgentLimits:
    """What one caller may use: the agent's limits, narrowed by the key's."""

    concurrent_jobs: int
    rate_per_minute: int
    reads_per_minute: int
    references: int
    reference_bytes: int
    output_bytes: int


@dataclass(frozen=True, slots=True)
class Agent:
    """The owner of a valid key, as of one request."""

    id: int
    name: str
    session_id: str
    key_id: int
    scopes: frozenset[str]
    limits: AgentLimits
    safety_off: frozenset[str]
    """Categories of blocked keywords that are not checked for this agent."""


def to_agent(row: Row, defaults: LimitSettings) -> Agent:
    """A row of `find_key`; limits that the agent lacks come from `defaults`."""
    of = dict(zip(row.keys(), row, strict=True))  # a Row finds a column by comparing names one by one
    return Agent(
        id=of["agent_id"],
        name=of["agent_name"],
        session_id=of["session_id"],
        key_id=of["key_id"],
        scopes=frozenset(of["scopes"].split()),
        limits=AgentLimits(
            concurrent_jobs=_narrowed(of, "concurrent_jobs", defaults.concurrent_jobs),
            rate_per_minute=_narrowed(of, "rate_per_minute", defaults.rate_per_minute),
            reads_per_minute=_narrowed(of, "reads_per_minute", defaults.reads_per_minute),
            references=_narrowed(of, "reference_limit", defaults.references),
            reference_bytes=_narrowed(of, "reference_bytes_limit", defaults.reference_bytes),
            output_bytes=_narrowed(of, "output_bytes_limit", defaults.output_bytes),
        ),
        safety_off=frozenset(of["safety_off"].split()),
    )


def _narrowed(of: Mapping[str, Any], column: str, default: int) -> int:
    own: int | None = of[column]
    key: int | None = of[f"key_{column}"]
    limit = default if own is None else own
    return limit if key is None else min(limit, key)
