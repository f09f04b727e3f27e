"""What an agent asks for: fields, bounds and defaults of a generate request.

Validation knows the profile of the model, so a request that passes here can be run.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from umrgen_core.errors import FieldProblem, InvalidRequest
from umrgen_core.loras import LoraShelf
from umrgen_core.profiles import MAX_LORAS, MAX_REFERENCES, MAX_SIDE_PX, MIN_SIDE_PX, ModelProfile
from umrgen_core.sections import WebhookSettings
from umrgen_core.webhooks import MAX_CALLBACK_CHARS, find_callback_problem

MAX_PROMPT_CHARS = 2000
MAX_SEED = 2**53 - 1
RANDOM_SEED = -1
DEFAULT_SIDE_PX = 1024
MAX_LORA_STRENGTH = 4.0
"""No profile takes more."""
MAX_LORA_FIELDS = 16
"""Of one entry of `loras`; each that is unknown would be a problem of its own."""
MAX_PROBLEMS = 20
"""An answer names no more: a body has room for thousands."""
MAX_LISTED = 50
"""As many of the model's LoRAs are named to who asked for another."""
MAX_FIELD_CHARS = 100
"""As much of a field's name is repeated in a problem: inside a LoRA it is the agent's own."""
MAX_IGNORED = 32
MAX_IGNORED_CHARS = 64
"""As many unknown fields, and as much of each, is kept with the job: every status repeats them."""
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

    @model_validator(mode="before")
    @classmethod
    def _has_few_fields(cls, value: object) -> object:
        if isinstance(value, dict) and len(value) > MAX_LORA_FIELDS:
            raise PydanticCustomError("too_many_fields", "has too many fields")
        return value


class GenerateRequest(BaseModel):
    """The body of POST /api/v1/generate."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    prompt: Annotated[Trimmed, Field(min_length=1)]
    negative: Trimmed = ""
    width: Side = DEFAULT_SIDE_PX
    height: Side = DEFAULT_SIDE_PX
    steps: Steps | None = None
    seed: Seed | None = None
    reference_images: Annotated[list[Name], Field(max_length=MAX_REFERENCES, fail_fast=True)] = []
    model: Name | None = None
    loras: Annotated[list[LoraChoice], Field(max_length=MAX_LORAS, fail_fast=True)] = []
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

    Raises InvalidRequest with every problem, but no more than MAX_PROBLEMS.
    """
    problems: list[FieldProblem] = []
    try:
        request = GenerateRequest.model_validate(dict(body))
    except ValidationError as error:
        problems = [describe_problem(item) for item in error.errors(include_url=False, include_input=False)]
    default = next(iter(models))
    model = default if body.get("model") is None else body["model"]
    if not isinstance(model, str):
        raise InvalidRequest(problems[:MAX_PROBLEMS])  # one of them says so
    if model not in models:
        served = ", ".join(models)
        unknown = FieldProblem("model", f"must be one of: {served}", list(models), default)
        raise InvalidRequest([*problems[: MAX_PROBLEMS - 1], unknown])
    profile = models[model]
    own = find_problems(body, profile, loras.list_names(model) if body.get("loras") else ())
    problems = [*_drop_said(problems, own), *own, *_check_callback(body, webhooks)]
    if problems:
        raise InvalidRequest(problems[:MAX_PROBLEMS])
    return AcceptedRequest(
        model=model,
        prompt=request.prompt,
        negative=request.negative,
        width=request.width,
        height=request.height,
        steps=profile.steps if request.steps is None else request.steps,
        seed=draw_seed() if request.seed is None or request.seed == RANDOM_SEED else request.seed,
        reference_names=tuple(request.reference_images),
        loras=tuple(request.loras),
        callback_url=request.callback_url,
        ignored=_list_ignored(body, request, profile),
    )


def find_problems(body: Mapping[str, Any], profile: ModelProfile, loras: Sequence[str]) -> list[FieldProblem]:
    """What of `body` the model cannot do. Fields of a wrong type are somebody else's to report."""
    return [*_check_steps(body, profile), *_check_area(body, profile), *_check_references(body, profile),
            *_check_loras(body, profile, loras)]  # fmt: skip


def _drop_said(problems: Iterable[FieldProblem], own: Iterable[FieldProblem]) -> list[FieldProblem]:
    """`problems` without the lists that are too long for anybody where the model's own limit is told."""
    said = {problem.field for problem in own} & {"reference_images", "loras"}
    return [problem for problem in problems if problem.field not in said]


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
        return
    names = [one.get("name") if isinstance(one, dict) else None for one in chosen]
    are_listed = False
    for place, name in enumerate(names):
        if not isinstance(name, str):
            continue
        if name not in known:
            yield _describe_unknown_lora(place, None if are_listed else known)
            are_listed = True
        elif names.index(name) != place:
            yield FieldProblem(f"loras[{place}].name", "is named twice")


def _describe_unknown_lora(place: int, known: Sequence[str] | None) -> FieldProblem:
    """The problem names the `known` ones, unless that is None: another problem of the answer has named them."""
    field = f"loras[{place}].name"
    if known is None:
        return FieldProblem(field, "is none of the model's LoRAs")
    listed = list(known[:MAX_LISTED])
    more = f" and {len(known) - MAX_LISTED} more" if len(known) > MAX_LISTED else ""
    said = ", ".join(listed) + more or "it has none"
    return FieldProblem(field, f"must be one of the model's LoRAs: {said}", listed)


def _check_callback(body: Mapping[str, Any], webhooks: WebhookSettings) -> Iterator[FieldProblem]:
    url = body.get("callback_url")
    if not isinstance(url, str) or len(url) > MAX_CALLBACK_CHARS:
        return
    problem = find_callback_problem(url, allow_http=webhooks.allow_http, allow_private=webhooks.allow_private)
    if problem is not None:
        yield FieldProblem("callback_url", problem)


def _list_ignored(body: Mapping[str, Any], request: GenerateRequest, profile: ModelProfile) -> tuple[str, ...]:
    unheard = [] if profile.negative or not request.negative else ["negative"]
    return (*unheard, *name_unknown([name for name in body if name not in GenerateRequest.model_fields]))


def name_unknown(names: Sequence[str]) -> list[str]:
    """Fields that nobody knows, as `ignored` names them: the first ones, cut short, and how many more there were."""
    named = [name[:MAX_IGNORED_CHARS] for name in names[:MAX_IGNORED]]
    return [*named, f"and {len(names) - MAX_IGNORED} more"] if len(names) > MAX_IGNORED else named


def draw_seed() -> int:
    """A random seed."""
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
    field = field[:MAX_FIELD_CHARS]
    if kind in _NEAREST:
        limit = context[_NEAREST[kind]]
        word = "least" if kind == "greater_than_equal" else "most"
        return FieldProblem(field, f"must be at {word} {limit}", limit, limit)
    if kind == "string_too_long":
        limit = context["max_length"]
        return FieldProblem(field, f"must have at most {limit} characters", limit)
    if kind == "too_long":
        limit = context["max_length"]
        return FieldProblem(field, f"must have at most {limit} items", limit)
    limit = context.get(_LIMITS.get(kind, ""))
    return FieldProblem(field, _SENTENCES.get(kind, error["msg"]), limit)
