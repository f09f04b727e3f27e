"""The life of a job: states, allowed transitions, and the rows as values. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class JobState(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    """Accepted and on disk; waits for a worker."""
    RUNNING = "running"
    """Claimed by one worker under a lease and a fence."""
    COMPLETED = "completed"
    """Ended with a picture."""
    FAILED = "failed"
    """Ended with an error code and a sentence."""
    CANCELLED = "cancelled"
    """Ended because its agent asked for it."""

    @property
    def ended(self) -> bool:
        """Whether nothing follows this state."""
        return not TRANSITIONS[self]


TRANSITIONS: Mapping[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.CANCELLED, JobState.FAILED}),
    JobState.RUNNING: frozenset({JobState.QUEUED, JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED}),
    JobState.COMPLETED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}


class ErrorCode(StrEnum):
    """Why a job failed."""

    OUT_OF_MEMORY = "out_of_memory"
    """The picture does not fit the device's memory."""
    WORKER_LOST = "worker_lost"
    """Every attempt lost its worker."""
    INVALID_REFERENCE = "invalid_reference"
    """A reference could not be read when the job ran."""
    TIMEOUT = "timeout"
    """Too long in the queue, or a run past its deadline."""
    CONTENT_BLOCKED = "content_blocked"
    """The finished picture was refused by the output check."""
    MODEL_ERROR = "model_error"
    """The pipeline raised, or returned something that is not the picture asked for."""


@dataclass(frozen=True, slots=True)
class Job:
    """One row of `jobs`. `_us` is wall time in microseconds, `_boot_ms` boot time in milliseconds."""

    seq: int
    id: str
    agent_id: int
    state: JobState
    model: str
    prompt: str
    negative: str
    width: int
    height: int
    steps: int
    seed: int
    reference_names: tuple[str, ...]
    loras: tuple[tuple[str, float], ...]
    """Names and strengths."""
    ignored: tuple[str, ...]
    request_id: str
    created_at_us: int
    started_at_us: int | None = None
    finished_at_us: int | None = None
    expires_at_us: int | None = None
    attempts: int = 0
    fence: int = 0
    worker_id: str | None = None
    cancel_requested_at_us: int | None = None
    step: int = 0
    timings: Mapping[str, float] | None = None
    ran_with: Mapping[str, object] | None = None
    """How a completed job was painted: what of the profile's options was in use."""
    error_code: str | None = None
    error: str | None = None
    retryable: bool | None = None
    output: Output | None = None
    callback_url: str | None = None
    """Where its agent wants to be told of its end."""
    traceparent: str | None = None
    """The span of the request that it came with, as W3C Trace Context writes it, where there was one."""


@dataclass(frozen=True, slots=True)
class Output:
    """The picture of a completed job: public name, name on disk, and what the file must be."""

    id: int
    agent_id: int
    session_id: str
    filename: str
    disk_name: str
    width: int
    height: int
    bytes: int
    sha256: str
    expires_at_us: int


@dataclass(frozen=True, slots=True)
class Reference:
    """An uploaded image as it is kept; `source_*` describe the bytes that the agent sent."""

    id: int
    agent_id: int
    session_id: str
    filename: str
    disk_name: str
    format: str
    width: int
    height: int
    bytes: int
    sha256: str
    source_sha256: str
    source_width: int
    source_height: int
    source_bytes: int
    source_format: str
    created_at_us: int
    expires_at_us: int


@dataclass(frozen=True, slots=True)
class Pin:
    """One image that a live job names, in order: what to open and what it must be."""

    position: int
    reference_id: int | None
    output_id: int | None
    disk_name: str
    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Claim:
    """A job that this worker holds under `fence`, with the images it names."""

    job: Job
    pins: tuple[Pin, ...]
    agent: str
    """The name of the job's agent."""

    @property
    def job_id(self) -> str:
        """The id of the claimed job."""
        return self.job.id

    @property
    def fence(self) -> int:
        """The number that every later write of this claim must still find in the row."""
        return self.job.fence
