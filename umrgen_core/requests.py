"""What an agent asks for: fields, bounds and defaults of a generate request.

Validation knows the profile of the model, so a request that passes here can be run.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from umrgen_core.config import WebhookSettings
from umrgen_core.errors import FieldProblem, InvalidRequest
from umrgen_core.loras import LoraShelf
from umrgen_core.profiles import MAX_SIDE_PX, MIN_SIDE_PX, ModelProfile
from umrgen_core.webhooks import MAX_CALLBACK_CHARS, find_callback_problem

MAX_PROMPT_CHARS = 2000
MAX_SEED = 2**53 - 1
RANDOM_SEED = -1
DEFAULT_SIDE_PX = 1024
MAX_LORA_STRENGTH = 4.0
STRICT_WEBHOOKS = WebhookSettings()


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
CallbackUrl = Annotated[str, StringConstraints(strict=True, max_length=MAX_CALLBACK_CHARS)]


Strength = Annotated[float, Field(strict=True, ge=-MAX_LORA_STRENGTH, le=MAX_LORA_STRENGTH)]


class LoraChoice(BaseModel):
    """One of `loras`: a small change to the model's weights, kept by the owner."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    strength: Strength = 1.0


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
    model: Name | None = None
    loras: list[LoraChoice] = []
    callback_url: CallbackUrl | None = None


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
    loras: tuple[LoraChoice, ...] = ()
    callback_url: str | None = None


def accept_request(
    body: Mapping[str, Any],
    models: Mapping[str, ModelProfile],
    loras: LoraShelf,
    webhooks: WebhookSettings = STRICT_WEBHOOKS,
) -> AcceptedRequest:
    """Check `body` against the contract and the model that it names, by default the first of `models`.

    Raises InvalidRequest with every problem.
    """
    problems: list[FieldProblem] = []
    try:
        request = GenerateRequest.model_validate(dict(body))
    except ValidationError as error:
        problems = [describe_problem(item) for item in error.errors(include_url=False)]
    default = next(iter(models))
    model = body.get("model") or default
    if not isinstance(model, str):
        raise InvalidRequest(problems)  # one of them says so
    if model not in models:
        served = ", ".join(models)
        raise InvalidRequest([*problems, FieldProblem("model", f"must be one of: {served}", list(models), default)])
    profile = models[model]
    problems += find_problems(body, profile, loras.list_names(model) if body.get("loras") else ())
    problems += _check_callback(body, webhooks)
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
        loras=tuple(request.loras),
        callback_url=request.callback_url,
        ignored=_list_ignored(body, request, profile),
    )


def find_problems(body: Mapping[str, Any], profile: ModelProfile, loras: Sequence[str]) -> list[FieldProblem]:
    """What of `body` the model cannot do. Fields of a wrong type are somebody else's to report."""
    return [*_check_steps(body, profile), *_check_area(body, profile), *_check_references(body, profile),
            *_check_loras(body, profile, loras)]  # fmt: skip


def _check_steps(body: Mapping[str, Any], profile: ModelProfile) -> Iterator[FieldProblem]:
    steps = _whole_number(body.get("steps"))
    if not isinstance(steps, int) or steps < 1:
        return
    if steps > profile.max_steps:
        yield FieldProblem("steps", f"must be at most {profile.max_steps}", profile.max_steps, profile.max_steps)
    if steps < profile.min_steps:
        yield FieldProblem("steps", f"must be at least {profile.min_steps}", profile.min_steps, profile.min_steps)


def _check_area(body: Mapping[str, Any], profile: ModelProfile) -> Iterator[FieldProblem]:
    width, height = (_whole_number(body.get(name, DEFAULT_SIDE_PX)) for name in ("width", "height"))
    if not isinstance(width, int) or not isinstance(height, int):
        return
    if not 1 <= min(width, height) <= max(width, height) <= MAX_SIDE_PX or width * height <= profile.max_area_px:
        return
    shrink = math.sqrt(profile.max_area_px / (width * height))
    nearest = f"{max(int(width * shrink), MIN_SIDE_PX)}x{max(int(height * shrink), MIN_SIDE_PX)}"
    yield FieldProblem(
        "width",
        f"width x height must be at most {profile.max_area_px} pixels for this model",
        profile.max_area_px,
        nearest,
    )


def _check_references(body: Mapping[str, Any], profile: ModelProfile) -> Iterator[FieldProblem]:
    references = body.get("reference_images", [])
    if not isinstance(references, list):
        return
    if len(references) > profile.references:
        yield FieldProblem(
            "reference_images",
            f"this model takes at most {profile.references} references, the request names {len(references)}",
            profile.references,
        )
    if len(references) < profile.min_references:
        yield FieldProblem(
            "reference_images", f"this model needs at least {profile.min_references} reference", profile.min_references
        )


def _check_loras(body: Mapping[str, Any], profile: ModelProfile, known: Sequence[str]) -> Iterator[FieldProblem]:
    chosen = body.get("loras", [])
    if not isinstance(chosen, list):
        return
    if len(chosen) > profile.loras:
        yield FieldProblem("loras", f"this model takes at most {profile.loras} LoRAs", profile.loras)
    names = [one.get("name") for one in chosen if isinstance(one, dict)]
    for place, name in enumerate(names):
        if isinstance(name, str) and name not in known:
            listed = ", ".join(known) or "it has none"
            yield FieldProblem(f"loras[{place}].name", f"must be one of the model's LoRAs: {listed}", list(known))
        elif names.index(name) != place:
            yield FieldProblem(f"loras[{place}].name", "is named twice")


def _check_callback(body: Mapping[str, Any], webhooks: WebhookSettings) -> Iterator[FieldProblem]:
    url = body.get("callback_url")
    if not isinstance(url, str) or len(url) > MAX_CALLBACK_CHARS:
        return
    problem = find_callback_problem(url, allow_http=webhooks.allow_http, allow_private=webhooks.allow_private)
    if problem is not None:
        yield FieldProblem("callback_url", problem)


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
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"]).removeprefix(".")
    if kind in _NEAREST:
        limit = context[_NEAREST[kind]]
        word = "least" if kind == "greater_than_equal" else "most"
        return FieldProblem(field, f"must be at {word} {limit}", limit, limit)
    if kind == "string_too_long":
        limit = context["max_length"]
        return FieldProblem(field, f"must have at most {limit} characters", limit)
    limit = context.get(_LIMITS.get(kind, ""))
    return FieldProblem(field, _SENTENCES.get(kind, error["msg"]), limit)
