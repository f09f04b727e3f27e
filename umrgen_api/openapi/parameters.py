"""Parameters of requests and headers of answers, each described once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from umrgen_api.routes.jobs import DEFAULT_PAGE, MAX_PAGE
from umrgen_api.routes.status import MAX_WAIT_S
from umrgen_core.jobs import JobState

Schema = dict[str, Any]

JOB_ID = "ext_0b8e5d2c-3a54-4c0e-9d5e-7f1f4b1c2d3e"
REFERENCE = "image_1739268682123004815162342004815162342.jpg"
PICTURE = "umrgen_004815162342004815162342.png"
SESSION = "sid_ext_gen"


def _parameter(name: str, place: str, description: str, schema: Schema | None = None, example: object = None) -> Schema:
    parameter: Schema = {
        "name": name,
        "in": place,
        "description": description,
        "required": place == "path",
        "schema": schema or {"type": "string"},
    }
    return parameter if example is None else parameter | {"example": example}


PARAMETERS: Mapping[str, Schema] = {
    "JobId": _parameter("job_id", "path", "A job of yours.", example=JOB_ID),
    "Filename": _parameter("filename", "path", "`filename` of an upload of yours.", example=REFERENCE),
    "SessionId": _parameter("session_id", "path", "The session that owns the file.", example=SESSION),
    "ReferenceFile": _parameter("filename", "path", "The file's name, which is its secret.", example=REFERENCE),
    "OutputFile": _parameter("filename", "path", "The file's name, which is its secret.", example=PICTURE),
    "FileSession": _parameter(
        "session_id", "query", "The session again, as in the URL that was given; not needed with the owner's key."
    ),
    "Wait": _parameter(
        "wait",
        "query",
        "Seconds to wait for another state before answering with things as they then stand.",
        {"type": "number", "minimum": 0, "maximum": MAX_WAIT_S},
    ),
    "Until": _parameter(
        "until", "query", "With `wait`: wait for the end, whatever happens on the way.", {"enum": ["done"]}
    ),
    "Prefer": _parameter("Prefer", "header", "`wait=N` means the same as `?wait=N`; anything else is left unheard."),
    "IfNoneMatch": _parameter("If-None-Match", "header", "An ETag that you have: 304 if nothing has changed."),
    "Range": _parameter("Range", "header", "A part of the file, such as `bytes=0-1023`."),
    "LastEventId": _parameter("Last-Event-ID", "header", "The id of the last event seen; what follows it is sent."),
    "State": _parameter("state", "query", "Only jobs in this state.", {"enum": [state.value for state in JobState]}),
    "Limit": _parameter(
        "limit",
        "query",
        "Most jobs of a page.",
        {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": DEFAULT_PAGE},
    ),
    "Cursor": _parameter("cursor", "query", "`next_cursor` of the page before."),
    "Erase": _parameter(
        "erase",
        "query",
        "True removes prompt, picture and events of an ended or queued job for good.",
        {"type": "boolean", "default": False},
    ),
    "IdempotencyKey": _parameter(
        "Idempotency-Key",
        "header",
        "The same key and body within 24 hours get the first 202 again, whatever has become of the job.",
        {"type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[!-~]{1,128}$"},
    ),
    "RequestId": _parameter(
        "X-Request-ID", "header", "Kept as the request's id if it is 1 to 64 of `[A-Za-z0-9._-]`, else replaced."
    ),
}


def _header(description: str, schema: Schema | None = None, *, required: bool = False) -> Schema:
    return {"description": description, "required": required, "schema": schema or {"type": "string"}}


HEADERS: Mapping[str, Schema] = {
    "X-Request-ID": _header(
        "The request's id; quote it when you report a problem.",
        {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
        required=True,
    ),
    "ETag": _header("Names this very answer; send it as If-None-Match.", required=True),
    "Location": _header("Path of the job's status.", required=True),
    "Idempotent-Replayed": _header("There when an earlier 202 is given again.", {"const": "true"}),
    "Preference-Applied": _header("The wait that was asked for in Prefer."),
    "Retry-After": _header("Whole seconds to wait.", {"type": "integer", "minimum": 1}),
    "WWW-Authenticate": _header("How to authenticate.", {"const": "Bearer"}, required=True),
    "Content-Range": _header("Which part of the file this is, or how long it is."),
    "Content-Disposition": _header("The name to save the file under."),
    "Cache-Control": _header("Private, until the file expires."),
}
