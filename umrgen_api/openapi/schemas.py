"""Models as schemas: the request as pydantic validates it, and the answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import JsonSchemaMode, JsonSchemaValue, models_json_schema

from umrgen_api.openapi import models, models_of_service, notices
from umrgen_core.profiles import MAX_REFERENCES, MAX_STEPS
from umrgen_core.requests import GenerateRequest

Schema = dict[str, Any]

REF_TEMPLATE = "#/components/schemas/{model}"
_ANSWERS: tuple[type[BaseModel], ...] = (
    models.Uploaded,
    models.ReferenceList,
    models.ReferenceDeleted,
    models.Accepted,
    models.Erased,
    notices.Event,
    notices.Webhook,
    models.JobList,
    models_of_service.Me,
    models_of_service.ModelList,
    models_of_service.Health,
    models_of_service.Readiness,
)
_FIELDS: Mapping[str, Schema] = {
    "prompt": {"description": "What to paint; counted after trimming.", "pattern": "\\S"},
    "negative": {"description": "What not to paint. A model that cannot honour it lists it in `ignored`."},
    "width": {"description": "The PNG has exactly this width."},
    "height": {"description": "The PNG has exactly this height."},
    "steps": {"description": "Denoising steps, within the model's limits; null for the model's own."},
    "seed": {"description": "The same seed and request paint the same picture; null or -1 for a random one."},
    "reference_images": {
        "description": "`filename` or `url` of uploads, or `image_url` of completed jobs of yours; their order counts.",
        "maxItems": MAX_REFERENCES,
    },
    "model": {"description": "One of `GET /api/v1/models`; null for the default."},
    "loras": {"description": "Of those that `GET /api/v1/models` names for the model."},
    "callback_url": {"description": "Told by a signed POST when the job has ended; see `webhooks`."},
}
"""What a reader is told of a field, and bounds that every model shares but pydantic does not check."""
_BOUNDS = {"ge": "minimum", "le": "maximum"}
"""Behind a validator of our own pydantic leaves bounds under its own names, which no reader knows."""


def describe_models() -> dict[str, Schema]:
    """The schema of every model, by component name."""
    answers: list[tuple[type[BaseModel], JsonSchemaMode]] = [(answer, "serialization") for answer in _ANSWERS]
    _, described = models_json_schema([(GenerateRequest, "validation"), *answers], ref_template=REF_TEMPLATE)
    status = TypeAdapter(models.Status).json_schema(ref_template=REF_TEMPLATE, mode="serialization")
    status.pop("$defs")
    schemas: dict[str, Schema] = {**described["$defs"], "Status": status}
    for name, schema in schemas.items():
        _tidy(schema, is_answer=name not in (GenerateRequest.__name__, "LoraChoice"))
    _point_to_status(schemas)
    _annotate_request(schemas[GenerateRequest.__name__])
    return schemas


def _point_to_status(schemas: dict[str, Schema]) -> None:
    """Lists of jobs name the component where pydantic spells the union out."""
    for name, field in (("JobList", "jobs"), ("Me", "current_jobs")):
        schemas[name]["properties"][field]["items"] = {"$ref": REF_TEMPLATE.format(model="Status")}


def _annotate_request(schema: Schema) -> None:
    fields = schema["properties"]
    for name, extra in _FIELDS.items():
        fields[name].update(extra)
    whole = next(kind for kind in fields["steps"]["anyOf"] if kind.get("type") == "integer")
    whole["maximum"] = MAX_STEPS


def _tidy(schema: JsonSchemaValue, *, is_answer: bool) -> None:
    """Drop titles that only repeat a name, and defaults of answers, which mean nothing."""
    for part in _walk(schema):
        for ours, keyword in _BOUNDS.items():
            if ours in part:
                part[keyword] = part.pop(ours)
        if isinstance(part.get("title"), str):
            del part["title"]
        if is_answer:
            part.pop("default", None)


def _walk(value: object) -> Iterator[Schema]:
    """Every schema in `value`; names of properties are not mistaken for keywords."""
    if isinstance(value, list):
        for item in value:
            yield from _walk(item)
    if not isinstance(value, dict):
        return
    yield value
    for name, part in value.items():
        yield from (_walk(list(part.values())) if name in ("properties", "$defs") else _walk(part))
