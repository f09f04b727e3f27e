"""What every endpoint takes and answers. A test holds this table to the routes."""

from __future__ import annotations

from collections.abc import Mapping

from umrgen_api.openapi.operation import JSON, Operation, Refusals, Reply, Schema
from umrgen_api.openapi.parameters import JOB_ID, REFERENCE
from umrgen_core import errors as e

ALWAYS: Refusals = (e.InvalidRequest, e.InternalError)
KEYED: Refusals = (*ALWAYS, e.Unauthorized, e.Forbidden, e.RateLimit, e.Unavailable)
WITH_BODY: Refusals = (e.RequestTimeout, e.UnsupportedMediaType)
_OF_JOB: Refusals = (*KEYED, e.JobNotFound, e.NotFound)
_OF_FILE: Refusals = (*ALWAYS, e.Forbidden, e.NotFound, e.RangeNotSatisfiable, e.Unavailable)


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _link(operation: str, parameter: str, description: str) -> Schema:
    return {
        "operationId": operation,
        "parameters": {parameter: f"$response.body#/{parameter}"},
        "description": description,
    }


_FILE_BODY: Mapping[str, Schema] = {
    "multipart/form-data": {
        "schema": {
            "type": "object",
            "required": ["file"],
            "properties": {
                "file": {
                    "type": "string",
                    "format": "binary",
                    "description": "A still PNG, JPEG or WebP of 64 to 8192 pixels a side, at most 40 megapixels"
                    " and 10,485,760 bytes; recognised by content.",
                }
            },
        },
        "encoding": {"file": {"contentType": "image/png, image/jpeg, image/webp"}},
    }
}
_PROMPT = "a red circle on a white background"
_GENERATE_BODY: Mapping[str, Schema] = {
    JSON: {
        "schema": _ref("GenerateRequest"),
        "examples": {
            "shortest": {"summary": "A prompt is enough", "value": {"prompt": _PROMPT}},
            "full": {
                "summary": "Size, steps and seed",
                "value": {"prompt": _PROMPT, "width": 1024, "height": 768, "steps": 4, "seed": 42},
            },
            "with_reference": {
                "summary": "From an upload; the name is that in its answer",
                "value": {"prompt": "the same, at night", "reference_images": [REFERENCE]},
            },
        },
    }
}
_EVENT = {
    "id": "7",
    "event": "state",
    "data": '{"success":true,"job_id":"JOB","state":"running"}'.replace("JOB", JOB_ID),
}
_FILE_HEADERS = ("ETag", "Cache-Control", "Content-Disposition")
_ACCEPTED_LINKS = {
    "status": _link("get_status", "job_id", "Where the job stands."),
    "events": _link("stream_events", "job_id", "The job's changes as they come."),
    "cancel": _link("cancel_job", "job_id", "End the job."),
}
_UPLOADED_LINKS = {"delete": _link("delete_reference", "filename", "Delete the reference.")}


def _file_operation(name: str, summary: str, file: str, media: tuple[str, ...]) -> Operation:
    whole = Reply("The file.", {}, media, _FILE_HEADERS)
    return Operation(
        name, "files", summary, "Open with the URL as it was given, whose name is its secret, or with the owner's key.",
        {
            200: whole,
            206: Reply("A part of the file.", {}, media, (*_FILE_HEADERS, "Content-Range")),
            304: Reply("Nothing has changed.", headers=("ETag",)),
        },
        _OF_FILE, ("SessionId", file, "FileSession", "Range", "IfNoneMatch"),
        security=("", "bearerAuth"), also_head=True,
    )  # fmt: skip


OPERATIONS: Mapping[tuple[str, str], Operation] = {
    ("POST", "/api/v1/upload-reference"): Operation(
        "upload_reference", "references", "Keep an image to generate with",
        "What is kept is a clean re-encode, without metadata and fitted within 4 megapixels. The same bytes again"
        " give the same `filename`.",
        {200: Reply("Kept.", _ref("Uploaded"), links=_UPLOADED_LINKS)},
        (*KEYED, *WITH_BODY, e.InvalidImage, e.FileTooLarge, e.QuotaExceeded), body=_FILE_BODY,
    ),
    ("GET", "/api/v1/references"): Operation(
        "list_references", "references", "Your references", "Newest first.",
        {200: Reply("All of them.", _ref("ReferenceList"))}, KEYED,
    ),
    ("DELETE", "/api/v1/references/{filename}"): Operation(
        "delete_reference", "references", "Delete a reference", "Refused while a queued or running job names it.",
        {200: Reply("Deleted.", _ref("ReferenceDeleted"))}, (*KEYED, e.NotFound, e.ReferenceInUse), ("Filename",),
    ),
    ("POST", "/api/v1/generate"): Operation(
        "generate", "generate", "Ask for a picture",
        "When this is answered the job is on disk. Fields that do not exist, and those that the model cannot honour,"
        " are named in `ignored`.",
        {202: Reply("Accepted.", _ref("Accepted"), headers=("Location", "Idempotent-Replayed"), links=_ACCEPTED_LINKS)},
        (
            *KEYED, *WITH_BODY, e.InvalidJson, e.SafetyViolation, e.ReferenceNotFound, e.IdempotencyConflict,
            e.RequestTooLarge, e.ConcurrentLimit, e.QuotaExceeded, e.QueueFull,
        ),
        ("IdempotencyKey",), body=_GENERATE_BODY,
    ),
    ("GET", "/api/v1/status/{job_id}"): Operation(
        "get_status", "generate", "Where a job stands",
        "At once, or with `wait` when something has changed. An agent may have 50 requests waiting.",
        {
            200: Reply("The status.", _ref("Status"), headers=("ETag", "Preference-Applied")),
            304: Reply("Nothing has changed.", headers=("ETag", "Preference-Applied")),
        },
        _OF_JOB, ("JobId", "Wait", "Until", "Prefer", "IfNoneMatch"),
    ),
    ("GET", "/api/v1/events/{job_id}"): Operation(
        "stream_events", "generate", "A job's changes as they come",
        "Server-sent events `state`, `progress` and at the end `done`, each with the whole status as data and an id."
        " A comment goes out every 15 seconds.",
        {
            200: Reply(
                "The stream; it ends after `done`.", _ref("Event"), ("text/event-stream",), example=_EVENT
            ),
            204: Reply("Nothing follows Last-Event-ID: the job has ended."),
        },
        _OF_JOB, ("JobId", "LastEventId"),
    ),
    ("GET", "/api/v1/jobs"): Operation(
        "list_jobs", "generate", "Your jobs", "Newest first, a page at a time.",
        {200: Reply("A page.", _ref("JobList"))}, KEYED, ("State", "Limit", "Cursor"),
    ),
    ("DELETE", "/api/v1/jobs/{job_id}"): Operation(
        "cancel_job", "generate", "Cancel a job, or erase it",
        "A queued job ends at once, a running one before its next step; one that has ended stays as it is.",
        {200: Reply("The status as it now stands.", {"anyOf": [_ref("Status"), _ref("Erased")]})},
        (*_OF_JOB, e.ReferenceInUse), ("JobId", "Erase"),
    ),
    ("GET", "/api/v1/models"): Operation(
        "list_models", "account", "The models and their limits", "The default first.",
        {200: Reply("All that are served.", _ref("ModelList"))}, KEYED,
    ),
    ("GET", "/api/v1/me"): Operation(
        "get_me", "account", "Your limits and what you use", "With the jobs under way.",
        {200: Reply("You.", _ref("Me"))}, KEYED,
    ),
    ("GET", "/api/v1/openapi.json"): Operation(
        "get_description", "account", "This description",
        "OpenAPI 3.1; the same at `/docs/openapi.json`, without a key.",
        {200: Reply("The description.", {"type": "object", "required": ["openapi", "paths"]})}, KEYED,
    ),
    ("GET", "/references/{session_id}/{filename}"): _file_operation(
        "get_reference", "An upload as it is kept", "ReferenceFile", ("image/png", "image/jpeg", "image/webp")
    ),
    ("GET", "/outputs/{session_id}/{filename}"): _file_operation(
        "get_output", "A finished picture", "OutputFile", ("image/png",)
    ),
    ("GET", "/healthz"): Operation(
        "get_health", "health", "Whether the process serves", "Without a key.",
        {200: Reply("It does.", _ref("Health"))}, ALWAYS, security=(),
    ),
    ("GET", "/readyz"): Operation(
        "get_readiness", "health", "Whether jobs would be run now", "Without a key.",
        {200: Reply("They would.", _ref("Readiness")), 503: Reply("They would not.", _ref("Readiness"))}, ALWAYS,
        security=(),
    ),
}  # fmt: skip
