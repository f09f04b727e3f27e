"""Refusals as schemas: one for each error code, its constants taken from the map that answers with them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

from umrgen_api.errors import HTTP_ERRORS, error_response
from umrgen_api.intake import MAX_FILE_BYTES
from umrgen_core import errors as e
from umrgen_core.jobs import JobState

Schema = dict[str, Any]

_STRING: Schema = {"type": "string"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_WHERE_RAISED: Mapping[type[e.UmrgenError], Schema] = {
    e.InvalidRequest: {"errors": {"type": "array", "items": {"$ref": "#/components/schemas/FieldProblem"}}},
    e.SafetyViolation: {"category": _STRING, "field": {"enum": ["prompt", "negative"]}},
    e.InvalidImage: {"reason": _STRING},
    e.ReferenceNotFound: {"filename": _STRING},
    e.FileTooLarge: {"limit": _COUNT},
    e.RangeNotSatisfiable: {"bytes": _COUNT},
    e.RateLimit: {"kind": {"enum": ["write", "read", "waiting", "failure"]}, "limit": _COUNT},
    e.QuotaExceeded: {
        "quota": {"enum": ["references", "reference_bytes", "output_bytes"]},
        "limit": _COUNT,
        "used": _COUNT,
    },
}
"""Fields that an error always adds."""
_SOMETIMES: Mapping[type[e.UmrgenError], Schema] = {
    e.RequestTooLarge: {"limit": _COUNT},
    e.ConcurrentLimit: {
        "job_id": _STRING,
        "state": {"enum": [JobState.QUEUED, JobState.RUNNING]},
        "progress": {"$ref": "#/components/schemas/Progress"},
        "limit": _COUNT,
    },
}
"""Fields that an error adds where there is something to say."""
_RETRY_AFTER: Schema = {"type": "number", "exclusiveMinimum": 0, "description": "Seconds to wait before trying again."}
RETRYABLE = frozenset({e.ConcurrentLimit, e.RateLimit, e.QueueFull, e.Unavailable})

FIELD_PROBLEM: Schema = {
    "type": "object",
    "description": "What is wrong with one field.",
    "required": ["field", "problem"],
    "properties": {
        "field": _STRING,
        "problem": _STRING,
        "limit": {"description": "The bound that was passed, or the values that may be."},
        "nearest": {"description": "The nearest value that would do."},
    },
}

_RETRY_S = 4.2
_SAMPLES: tuple[e.UmrgenError, ...] = (
    e.InvalidJson("The body is not JSON: Expecting value at character 12."),
    e.InvalidRequest([e.FieldProblem("width", "must be at most 2048", 2048, 2048)]),
    e.SafetyViolation("prompt", "violence"),
    e.InvalidImage("it is not a PNG, JPEG or WebP image (recognised by content, not by name)"),
    e.ReferenceNotFound("image_1.png"),
    e.Unauthorized(),
    e.Forbidden("Your key lacks the scope 'generate'. Ask the owner for one that has it."),
    e.JobNotFound(),
    e.NotFound("There is no such file; it may have expired."),
    e.MethodNotAllowed("This path takes GET, HEAD."),
    e.RequestTimeout("The body did not arrive within 60 s. Send it again."),
    e.IdempotencyConflict("This Idempotency-Key was used for another body. Use a new key for a new request."),
    e.ReferenceInUse("A queued or running job names this reference. Wait for the job to end, then delete it."),
    e.FileTooLarge(f"The file has more than {MAX_FILE_BYTES} bytes. Scale it down.", extra={"limit": MAX_FILE_BYTES}),
    e.RequestTooLarge("A JSON body may have at most 65536 bytes.", extra={"limit": 65536}),
    e.UnsupportedMediaType("Send Content-Type: application/json."),
    e.RangeNotSatisfiable("The file has 1000 bytes; ask for a part of those.", extra={"bytes": 1000}),
    e.ConcurrentLimit(
        "You have your limit of 1 job(s) queued or running. Poll its status until it has ended, then submit again.",
        extra={
            "job_id": "ext_0b8e5d2c-3a54-4c0e-9d5e-7f1f4b1c2d3e",
            "state": "running",
            "progress": {"step": 1, "steps": 4, "fraction": 0.25},
            "limit": 1,
        },
        retry_after_s=_RETRY_S,
    ),
    e.RateLimit("You may make 60 requests a minute.", extra={"limit": 60, "kind": "write"}, retry_after_s=_RETRY_S),
    e.QuotaExceeded(
        "You keep 500 references, your limit is 500. Delete some.",
        extra={"quota": "references", "limit": 500, "used": 500},
    ),
    e.QueueFull("The service holds its limit of 1000 queued jobs. Nothing was accepted.", retry_after_s=_RETRY_S),
    e.Unavailable("The store is busy; nothing was written. Try again shortly."),
    e.InternalError("Something broke here; it has been logged under this request's X-Request-ID."),
)


def schema_name(error: type[e.UmrgenError]) -> str:
    """The component that describes `error`."""
    return error.__name__ if error.__name__.endswith("Error") else f"{error.__name__}Error"


def describe_errors() -> dict[str, Schema]:
    """The schema of every error code, by component name."""
    return {"FieldProblem": FIELD_PROBLEM} | {schema_name(error): _describe(error) for error in HTTP_ERRORS}


def _describe(error: type[e.UmrgenError]) -> Schema:
    always, sometimes = _WHERE_RAISED.get(error, {}), _SOMETIMES.get(error, {})
    retry = {"retry_after": _RETRY_AFTER} if error in RETRYABLE else {}
    required = ["success", "error", "code", "message", *always]
    if retry and error is not e.ConcurrentLimit:  # an agent that may have no job at all need not wait
        required.append("retry_after")
    return {
        "type": "object",
        "description": (error.__doc__ or "").partition("\n")[0],
        "required": required,
        "properties": {
            "success": {"type": "boolean", "const": False},
            "error": {"type": "string", "const": HTTP_ERRORS[error].error},
            "code": {"type": "string", "const": error.code},
            "message": {"type": "string", "description": "What to do about it."},
            **always,
            **sometimes,
            **retry,
        },
    }


def sample_errors() -> dict[str, Schema]:
    """An example of every error by its code, made by what makes the real ones."""
    return {sample.code: {"summary": HTTP_ERRORS[type(sample)].error, "value": _body(sample)} for sample in _SAMPLES}


def _body(error: e.UmrgenError) -> dict[str, Any]:
    body = error_response(error).body
    parsed: dict[str, Any] = json.loads(body) if isinstance(body, bytes) else {}
    return parsed


def describe_refusals(errors: Iterable[type[e.UmrgenError]]) -> dict[str, Schema]:
    """The responses of an operation that may refuse with `errors`, by status."""
    ordered = sorted(set(errors), key=lambda error: (HTTP_ERRORS[error].status, error.code))
    grouped = groupby(ordered, key=lambda error: HTTP_ERRORS[error].status)
    return {str(status): _describe_refusal(list(same)) for status, same in grouped}


def _describe_refusal(errors: list[type[e.UmrgenError]]) -> Schema:
    references = [{"$ref": f"#/components/schemas/{schema_name(error)}"} for error in errors]
    names = {"X-Request-ID"}
    names |= {"Retry-After"} if RETRYABLE & set(errors) else set()
    names |= {"WWW-Authenticate"} if e.Unauthorized in errors else set()
    names |= {"Content-Range"} if e.RangeNotSatisfiable in errors else set()
    return {
        "description": "; ".join(HTTP_ERRORS[error].error for error in errors),
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in sorted(names)},
        "content": {
            "application/json": {
                "schema": references[0] if len(references) == 1 else {"oneOf": references},
                "examples": {error.code: {"$ref": f"#/components/examples/{error.code}"} for error in errors},
            }
        },
    }
