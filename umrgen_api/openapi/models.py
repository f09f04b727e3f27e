"""Answers as models: what `umrgen_api.render` yields, with a sentence for every field.

Only described from, never validated with: the tests hold real answers to them. A field with a default may be
absent from an answer; every other is always there.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from umrgen_core.jobs import ErrorCode, JobState
from umrgen_core.profiles import MAX_SIDE_PX, MAX_STEPS, MIN_SIDE_PX
from umrgen_core.requests import MAX_PROMPT_CHARS, MAX_SEED, LoraChoice

Time = Annotated[
    str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$", json_schema_extra={"format": "date-time"})
]
Path = Annotated[str, Field(pattern="^/")]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(ge=0)]
JobId = Annotated[str, Field(pattern="^ext_[0-9a-f-]{36}$", description="The job's id.")]
Side = Annotated[int, Field(ge=MIN_SIDE_PX, le=MAX_SIDE_PX)]


class Answer(BaseModel):
    """Every answer that is no error."""

    model_config = ConfigDict(frozen=True)
    success: Literal[True]


class Original(BaseModel):
    """What a reference was made from: the bytes as they were sent."""

    width: Positive
    height: Positive
    bytes: Positive
    format: Literal["jpeg", "png", "webp"]


class Reference(BaseModel):
    """An upload as it is kept: a clean re-encode without metadata."""

    filename: str = Field(pattern=r"^image_\d{37,}\.(jpg|png|webp)$", description="Goes into `reference_images`.")
    url: Path = Field(description="Path of the file, with the session that opens it.")
    width: Positive
    height: Positive
    bytes: Positive
    sha256: Sha256
    original: Original
    created_at: Time
    expires_at: Time = Field(description="Using or uploading it again moves this on.")


class Uploaded(Answer, Reference):
    """An image was kept, or the same bytes were found kept."""


class ReferenceList(Answer):
    """The agent's own references, newest first."""

    references: list[Reference]


class ReferenceDeleted(Answer):
    """A reference is no more."""

    filename: str
    message: str


class Accepted(Answer):
    """A job that is on disk: no crash loses it."""

    job_id: JobId
    message: str
    state: Literal[JobState.QUEUED]
    queue_position: Positive = Field(description="1 is next; an estimate.")
    status_url: Path
    ignored: list[str] = Field(description="Fields of the request that count for nothing with this model.")


class Job(Answer):
    """What every status has: the request as it was accepted."""

    job_id: JobId
    created_at: Time
    attempts: Count = Field(description="How often a worker has taken it.")
    request_id: str = Field(description="`X-Request-ID` of the answer that accepted it; the owner's log knows it too.")
    prompt: str = Field(min_length=1, max_length=MAX_PROMPT_CHARS)
    negative: str = Field(max_length=MAX_PROMPT_CHARS)
    width: Side
    height: Side
    steps: int = Field(ge=1, le=MAX_STEPS)
    seed: int = Field(ge=0, le=MAX_SEED, description="The seed in use, drawn where none was given.")
    reference_images: list[str]
    model: str
    loras: list[LoraChoice]
    ignored: list[str]
    callback_url: str | None


class QueuedJob(Job):
    """Waits for a worker."""

    state: Literal[JobState.QUEUED]
    queue_position: Positive = Field(description="1 is next; an estimate under fair order, at most 100.")
    queue_position_capped: Literal[True] = Field(default=True, description="There when the position is beyond 100.")
    eta_seconds: Seconds | None = Field(description="Until the picture, from measured times; null before any.")


class Progress(BaseModel):
    """How far a run is."""

    step: Count
    steps: Positive
    fraction: float = Field(ge=0, le=1)


class RunningJob(Job):
    """Is being painted."""

    state: Literal[JobState.RUNNING]
    progress: Progress
    started_at: Time
    eta_seconds: Seconds | None = Field(description="Until the picture, from measured times; null before any.")
    cancel_requested: bool


class EndedJob(Job):
    """Will not change any more."""

    finished_at: Time
    expires_at: Time = Field(description="When job and picture are deleted.")


class CompletedJob(EndedJob):
    """Ended with a picture."""

    state: Literal[JobState.COMPLETED]
    image_url: str = Field(
        pattern="^(/|https?://)",
        description="Path of the PNG, with the session that opens it; a whole URL in a webhook of a public service.",
    )
    timings: dict[str, Seconds] = Field(
        description="Seconds of each stage: queued, load_references, encode, denoise, decode, save, total;"
        " check too where the output check is on."
    )
    ran_with: dict[str, Any] = Field(description="What of the model's options was in use.")
    sha256: Sha256
    bytes: Positive


class FailedJob(EndedJob):
    """Ended without a picture."""

    state: Literal[JobState.FAILED]
    error: str = Field(description="A sentence.")
    error_code: ErrorCode
    retryable: bool = Field(description="Whether the same request may succeed another time.")


class CancelledJob(EndedJob):
    """Ended because its agent asked for it."""

    state: Literal[JobState.CANCELLED]


Status = Annotated[
    QueuedJob | RunningJob | CompletedJob | FailedJob | CancelledJob,
    Field(discriminator="state", description="Where a job stands."),
]


class Erased(Answer):
    """A job of which nothing is left."""

    job_id: JobId
    state: JobState = Field(description="Where it stood.")
    erased: Literal[True]


class JobList(Answer):
    """A page of the agent's own jobs, newest first."""

    jobs: list[Status]
    next_cursor: JobId | None = Field(description="`cursor` of the next page; null on the last.")
