"""What a request for pictures asks for, and the generates that it comes to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from umrgen_api.openai.errors import OpenAiError
from umrgen_api.openai.names import find_model
from umrgen_api.submission import name_submission
from umrgen_core.config import Settings
from umrgen_core.errors import FieldProblem, InvalidRequest
from umrgen_core.job_store import Submission
from umrgen_core.requests import MAX_SEED, RANDOM_SEED, AcceptedRequest, describe_problem, draw_seed, name_unknown

MAX_PICTURES = 10
MAX_PARTIAL_IMAGES = 3
AUTO = "auto"


class Endpoint(StrEnum):
    """What is asked for; the values begin the names of events."""

    GENERATION = "image_generation"
    """A picture from a prompt."""
    EDIT = "image_edit"
    """A picture from a prompt and images."""


class ImageRequest(BaseModel):
    """What this API adds to a generate. Prompt, seed, steps and the like are checked with the generate."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    model: str | None = None
    n: Annotated[int, Field(ge=1, le=MAX_PICTURES)] = 1
    size: Annotated[str, Field(pattern=r"^(auto|[0-9]{1,5}x[0-9]{1,5})$")] = AUTO
    response_format: Literal["b64_json", "url"] = "b64_json"
    output_format: Literal["png"] = "png"
    background: Literal["auto", "opaque"] = "auto"
    stream: bool = False
    partial_images: Annotated[int, Field(ge=0, le=MAX_PARTIAL_IMAGES)] = 0
    progress: bool = False


PASSED_ON = {"prompt": "prompt", "negative_prompt": "negative", "steps": "steps", "seed": "seed", "loras": "loras"}
"""Fields that are a generate's own, by its name for them."""
CANNOT = {
    "mask": "is not supported: the whole picture is painted anew; leave it out and say in the prompt what changes",
    "markup": "is not supported: leave it out and say in the prompt what changes",
}
_ALLOWED = {
    "size": 'must be "auto" or WIDTHxHEIGHT in pixels, such as "1024x768"',
    "response_format": 'must be "b64_json" or "url"',
    "output_format": 'must be "png": pictures are made and kept as PNG, and not converted',
    "background": 'must be "auto" or "opaque": no model here paints transparency',
    "stream": "must be true or false",
    "progress": "must be true or false",
}


@dataclass(frozen=True, slots=True)
class Order:
    """A request that can be fulfilled."""

    endpoint: Endpoint
    request: ImageRequest
    asked: Mapping[str, Any]
    """The request as it came: what an Idempotency-Key stands for."""
    generate: Mapping[str, Any]
    """The body of its generates, without references."""
    ignored: tuple[str, ...]

    def turn_to(self, place: int, accepted: AcceptedRequest) -> AcceptedRequest:
        """One of its generates, made from the first. A seed counts upwards: equal seeds would give equal pictures."""
        is_random = self.generate.get("seed") in (None, RANDOM_SEED)
        return replace(accepted, seed=draw_seed() if is_random else (accepted.seed + place) % (MAX_SEED + 1))

    def submission_of(self, place: int, key: str) -> Submission:
        """One of its generates under the request's Idempotency-Key; no client's key holds a space."""
        own_key = f"{key} {place}" if place else key
        return name_submission(own_key, {"endpoint": self.endpoint.value, "asked": dict(self.asked), "place": place})


def read_order(endpoint: Endpoint, fields: Mapping[str, Any], settings: Settings, identity: Mapping[str, Any]) -> Order:
    """Check the fields of a request; `identity` is what tells it from others beside them.

    Raises InvalidRequest or OpenAiError.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    problems = [FieldProblem(name, CANNOT[name]) for name in CANNOT if name in given]
    try:
        request = ImageRequest.model_validate(given)
    except ValidationError as error:
        raise InvalidRequest([*problems, *map(_describe, error.errors(include_url=False))]) from None
    if request.stream and request.response_format == "url":
        problems.append(FieldProblem("response_format", 'must be "b64_json" with stream: events carry the picture'))
    if problems:
        raise InvalidRequest(problems)
    if request.response_format == "url" and not settings.api.public_url:
        raise OpenAiError(
            400,
            "unsupported_value",
            'response_format "url" needs the setting [api] public_url, which the owner of this service has not set.'
            ' Ask for "b64_json".',
            param="response_format",
        )
    generate: dict[str, Any] = {PASSED_ON[name]: value for name, value in given.items() if name in PASSED_ON}
    generate["model"] = find_model(request.model, settings.served_models, edits=endpoint is Endpoint.EDIT)
    if request.size != AUTO:
        width, _, height = request.size.partition("x")
        generate |= {"width": int(width), "height": int(height)}
    return Order(endpoint, request, {**given, **identity}, generate, _list_ignored(given))


def _list_ignored(given: Mapping[str, Any]) -> tuple[str, ...]:
    known = ImageRequest.model_fields.keys() | PASSED_ON.keys()
    without_effect = ["partial_images"] if given.get("partial_images") else []
    return (*without_effect, *name_unknown([name for name in given if name not in known]))


def _describe(error: Any) -> FieldProblem:
    field = str(error["loc"][0])
    return FieldProblem(field, _ALLOWED[field]) if field in _ALLOWED else describe_problem(error)
