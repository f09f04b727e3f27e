"""What the service answers, as frozen dataclasses. `raw` is the whole answer, with fields newer than this client."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

Json = Mapping[str, Any]
ENDED = frozenset({"completed", "failed", "cancelled"})


def _time(value: str | None) -> datetime | None:
    return None if value is None else datetime.fromisoformat(value)


@dataclass(frozen=True, slots=True)
class Reference:
    """An upload as the service keeps it. `url` is a path with its secret; `sha256` and sizes are of the stored file."""

    filename: str
    url: str
    width: int
    height: int
    bytes: int
    sha256: str
    expires_at: datetime
    raw: Json = field(repr=False, compare=False, default_factory=dict)

    @classmethod
    def from_json(cls, raw: Json) -> Self:
        """Read one answer."""
        names = ("filename", "url", "width", "height", "bytes", "sha256")
        same: dict[str, Any] = {name: raw[name] for name in names}
        return cls(**same, expires_at=datetime.fromisoformat(raw["expires_at"]), raw=raw)


@dataclass(frozen=True, slots=True)
class Progress:
    """Steps done of all; `fraction` is from 0 to 1."""

    step: int
    steps: int
    fraction: float


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """A job as it stood when it was asked for. `state` is queued, running, completed, failed or cancelled."""

    id: str
    state: str
    created_at: datetime
    attempts: int
    prompt: str
    negative: str
    width: int
    height: int
    steps: int
    seed: int
    model: str
    reference_images: tuple[str, ...]
    loras: tuple[tuple[str, float], ...]
    ignored: tuple[str, ...]
    queue_position: int | None = None
    eta_s: float | None = None
    progress: Progress | None = None
    cancel_requested: bool = False
    started_at: datetime | None = None
    finished_at: datetime | None = None
    expires_at: datetime | None = None
    image_url: str | None = None
    sha256: str | None = None
    bytes: int | None = None
    timings: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None
    error_code: str | None = None
    retryable: bool | None = None
    raw: Json = field(repr=False, compare=False, default_factory=dict)

    @classmethod
    def from_json(cls, raw: Json, **owner: Any) -> Self:
        """Read one status."""
        progress = raw.get("progress")
        always = ("state", "attempts", "prompt", "negative", "width", "height", "steps", "seed", "model")
        optional = ("queue_position", "image_url", "sha256", "bytes", "error", "error_code", "retryable")
        same: dict[str, Any] = {name: raw[name] for name in always} | {name: raw.get(name) for name in optional}
        return cls(
            id=raw["job_id"],
            created_at=datetime.fromisoformat(raw["created_at"]),
            reference_images=tuple(raw.get("reference_images", ())),
            loras=tuple((one["name"], one["strength"]) for one in raw.get("loras", ())),
            ignored=tuple(raw.get("ignored", ())),
            eta_s=raw.get("eta_seconds"),
            progress=None if progress is None else Progress(progress["step"], progress["steps"], progress["fraction"]),
            cancel_requested=bool(raw.get("cancel_requested", False)),
            timings=dict(raw.get("timings", {})),
            raw=raw,
            started_at=_time(raw.get("started_at")),
            finished_at=_time(raw.get("finished_at")),
            expires_at=_time(raw.get("expires_at")),
            **same,
            **owner,
        )

    @property
    def ended(self) -> bool:
        """Whether the state will not change any more."""
        return self.state in ENDED


@dataclass(frozen=True, slots=True)
class Range:
    """Bounds of a field, both included, and what a request gets that names nothing."""

    min: int
    max: int
    default: int | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """What a request may name as `model`, and what it takes. Sides are in pixels."""

    name: str
    default: bool
    revision: str
    licence: str
    steps: Range
    references: Range
    side: Range
    max_pixels: int
    negative: bool
    max_loras: int
    loras: tuple[str, ...]
    raw: Json = field(repr=False, compare=False, default_factory=dict)

    @classmethod
    def from_json(cls, raw: Json) -> Self:
        """Read one of the models."""
        steps, references, size, loras = raw["steps"], raw["references"], raw["size"], raw["loras"]
        return cls(
            name=raw["name"],
            default=raw["default"],
            revision=raw["revision"],
            licence=raw["licence"],
            steps=Range(steps["min"], steps["max"], steps["default"]),
            references=Range(references["min"], references["max"]),
            side=Range(size["min_side"], size["max_side"]),
            max_pixels=size["max_pixels"],
            negative=raw["negative"],
            max_loras=loras["max"],
            loras=tuple(loras["names"]),
            raw=raw,
        )


J = TypeVar("J", bound=JobStatus)


@dataclass(frozen=True, slots=True)
class Me(Generic[J]):
    """Who the key belongs to, its limits, what of them is used, and the jobs under way."""

    agent: str
    session_id: str
    scopes: tuple[str, ...]
    limits: Mapping[str, int]
    usage: Mapping[str, int]
    current_jobs: tuple[J, ...]
    raw: Json = field(repr=False, compare=False, default_factory=dict)

    @classmethod
    def from_json(cls, raw: Json, current_jobs: tuple[J, ...]) -> Self:
        """Read one answer, its jobs read already."""
        session_id, limits, usage = raw["session_id"], raw["limits"], raw["usage"]
        return cls(raw["agent"], session_id, tuple(raw["scopes"]), limits, usage, current_jobs, raw)


@dataclass(frozen=True, slots=True)
class Page(Generic[J]):
    """Some of the jobs, newest first; `next_cursor` asks for the rest and is None on the last page."""

    jobs: tuple[J, ...]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class Event(Generic[J]):
    """One change of a job: `kind` is state, progress or done; `id` is where to go on."""

    kind: str
    id: int
    job: J


@dataclass(frozen=True, slots=True)
class Picture:
    """A finished PNG and the job that it came from."""

    data: bytes = field(repr=False)
    job: JobStatus

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the file whole or not at all, over one that is there; its path."""
        target = Path(path)
        partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
        try:
            partial.write_bytes(self.data)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
        return target
