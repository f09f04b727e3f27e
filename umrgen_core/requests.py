"""What an agent asks for: fields, bounds and defaults of a generate request.

Validation knows the profile of the model, so a request that passes here can be run.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from umrgen_core.errors import FieldProblem, InvalidRequest
from umrgen_core.profiles import MAX_SIDE_PX, MIN_SIDE_PX, ModelProfile

MAX_PROMPT_CHARS = 2000
MAX_SEED = 2**53 - 1
RANDOM_SEED = -1
DEFAULT_SIDE_PX = 1024


def _whole_number(value: object) -> object:
    """1024.0 is an integer; true and "1024" are not (strict mode refuses them)."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


Trimmed = Annotated[str, StringConstraints(strict=True, strip_whitespace=True, max_length=MAX_PROMPT_CHARS)]
Side = Annotated[int, BeforeValidator(_whole_number), Field(strict=True, ge=MIN_SIDE_PX, le=MAX_SIDE_PX)]
Steps = Annotated[int, BeforeValidator(_whole_number), Field(strict=True, ge=1)]
Seed = Annotated[int, BeforeValidator(_whole_number), Field(strict=True, ge=RANDOM_SEED, le=MAX_SEED)]
Name = Annotated[str, StringConstraints(strict=True)]


class GenerateRequest(BaseModel):
    """The body of POST /api/v1/generate."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    prompt: Annotated[Trimmed, Field(min_length=1)]
    negative: Trimmed = ""
    width: Side = DEFAULT_SIDE_PX
    height: Side = DEFAULT_SIDE_PX
    steps: Steps | None = None
    seed: Seed | None = None
    reference_images: list[Name] = []


@dataclass(frozen=True, slots=True)
class AcceptedRequest:
    """A request as it will be run: every default filled in, the seed drawn, what is ignored named."""

    model: str
    prompt: str
    negative: str
    width: int
    height: int
    steps: int
    seed: int
    reference_names: tuple[str, ...]
    ignored: tuple[str, ...]


def accept_request(body: Mapping[str, Any], model: str, profile: ModelProfile) -> AcceptedRequest:
    """Check `body` against the contract and the model. Raises InvalidRequest with every problem."""
    problems: list[FieldProblem] = []
    try:
        request = GenerateRequest.model_validate(dict(body))
    except ValidationError as error:
        problems = [describe_problem(item) for item in error.errors(include_url=False)]
    problems += _problems_with_model(body, profile)
    if problems:
        raise InvalidRequest(problems)
    return AcceptedRequest(
        model=model,
        prompt=request.prompt,
        negative=request.negative,
        width=request.width,
        height=request.height,
        steps=profile.steps if request.steps is None else request.steps,
        seed=_draw_seed() if request.seed is None or request.seed == RANDOM_SEED else request.seed,
        reference_names=tuple(request.reference_images),
        ignored=_list_ignored(body, request, profile),
    )


def _problems_with_model(body: Mapping[str, Any], profile: ModelProfile) -> list[FieldProblem]:
    problems = []
    steps = _whole_number(body.get("steps"))
    if isinstance(steps, int) and steps > profile.max_steps:
        problems.append(
            FieldProblem("steps", f"must be at most {profile.max_steps}", profile.max_steps, profile.max_steps)
        )
    references = body.get("reference_images")
    if isinstance(references, list) and len(references) > profile.references:
        problems.append(
            FieldProblem(
                "reference_images",
                f"this model takes at most {profile.references} references, the request names {len(references)}",
                profile.references,
            )
        )
    return problems


def _list_ignored(body: Mapping[str, Any], request: GenerateRequest, profile: ModelProfile) -> tuple[str, ...]:
    unheard = [] if profile.negative or not request.negative else ["negative"]
    unknown = [name for name in body if name not in GenerateRequest.model_fields]
    return (*unheard, *unknown)


def _draw_seed() -> int:
    return secrets.randbelow(MAX_SEED + 1)


_NEAREST = {"greater_than_equal": "ge", "less_than_equal": "le"}
_LIMITS = {"string_too_long": "max_length", "string_too_short": "min_length"}
_SENTENCES = {
    "missing": "is required",
    "int_type": "must be a whole number",
    "string_type": "must be a string",
    "list_type": "must be an array of strings",
    "string_too_short": "must not be empty",
}


def describe_problem(error: Any) -> FieldProblem:
    """One of pydantic's errors in the contract's words."""
    kind, context = error["type"], error.get("ctx", {})
    field = "".join(f"[{part}]" if isinstance(part, int) else part for part in error["loc"])
    if kind in _NEAREST:
        limit = context[_NEAREST[kind]]
        word = "least" if kind == "greater_than_equal" else "most"
        return FieldProblem(field, f"must be at {word} {limit}", limit, limit)
    if kind == "string_too_long":
        limit = context["max_length"]
        return FieldProblem(field, f"must have at most {limit} characters", limit)
    limit = context.get(_LIMITS.get(kind, ""))
    return FieldProblem(field, _SENTENCES.get(kind, error["msg"]), limit)
