"""More answers as models: the caller's limits, the models that are served, and health."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from umrgen_api.openapi.models import Answer, Count, Positive, Status
from umrgen_core.agents import Scope
from umrgen_core.profiles import MAX_STEPS


class Limits(BaseModel):
    """What the caller may use."""

    concurrent_jobs: Count = Field(description="Jobs queued or running.")
    rate_per_minute: Count = Field(description="Generates and uploads.")
    reads_per_minute: Count = Field(description="Every other request.")
    references: Count
    reference_bytes: Count
    output_bytes: Count


class Usage(BaseModel):
    """What of it is used."""

    references: Count
    reference_bytes: Count
    output_bytes: Count
    concurrent_jobs: Count


class Me(Answer):
    """Who is asking."""

    agent: str
    session_id: str
    scopes: list[Scope]
    limits: Limits
    usage: Usage
    current_jobs: list[Status]


class StepLimits(BaseModel):
    """Denoising steps."""

    default: Positive
    min: Positive
    max: int = Field(ge=1, le=MAX_STEPS)


class ReferenceLimits(BaseModel):
    """How many references a request names."""

    min: Count
    max: Count


class SizeLimits(BaseModel):
    """Sizes of a picture, in pixels."""

    min_side: Positive
    max_side: Positive
    max_pixels: Count
    native_side: Positive | None = Field(description="The one side that the model paints; null for any.")


class LoraLimits(BaseModel):
    """LoRAs that a request may name."""

    max: Count
    names: list[str]


class Model(BaseModel):
    """A model and its limits."""

    name: str
    default: bool
    revision: str
    licence: str
    steps: StepLimits
    references: ReferenceLimits
    size: SizeLimits
    negative: bool = Field(description="Whether a negative prompt counts.")
    loras: LoraLimits


class ModelList(Answer):
    """What `model` may name, the default first."""

    models: list[Model]


class Health(Answer):
    """The process serves."""

    status: Literal["ok"]


class Readiness(BaseModel):
    """Whether a job submitted now would be run."""

    success: bool
    status: Literal["ready", "not ready"]
    reasons: list[str] = Field(description="Why not; empty when ready. Draining: new jobs are refused for a while.")
    paused: Literal[True] = Field(default=True, description="There while jobs are accepted but wait: nothing is run.")
