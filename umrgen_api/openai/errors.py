"""Every error in the shape that clients of the OpenAI API know: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

import json
from collections.abc import Mapping

from aiohttp import web

from umrgen_api.errors import HTTP_ERRORS, INTERNAL, error_response, json_response
from umrgen_core import errors as e
from umrgen_core.jobs import ErrorCode, Job, JobState

PREFIX = "/v1"
SHOULD_RETRY = "X-Should-Retry"
"""What the official clients obey before their own rules, by which they try every 409, 429 and 5xx again."""

INVALID = "invalid_request_error"
BLOCKED = "image_generation_user_error"
SERVER = "server_error"

KINDS: Mapping[type[e.UmrgenError], tuple[str, str]] = {
    e.InvalidJson: (INVALID, "invalid_json"),
    e.InvalidRequest: (INVALID, "invalid_value"),
    e.SafetyViolation: (BLOCKED, "moderation_blocked"),
    e.InvalidImage: (INVALID, "invalid_image_file"),
    e.ReferenceNotFound: (INVALID, "reference_not_found"),
    e.Unauthorized: (INVALID, "invalid_api_key"),
    e.Forbidden: (INVALID, "missing_scope"),
    e.JobNotFound: (INVALID, "job_not_found"),
    e.NotFound: (INVALID, "unknown_url"),
    e.MethodNotAllowed: (INVALID, "method_not_supported"),
    e.RequestTimeout: (INVALID, "request_timeout"),
    e.IdempotencyConflict: (INVALID, "idempotency_conflict"),
    e.ReferenceInUse: (INVALID, "reference_in_use"),
    e.FileTooLarge: (INVALID, "file_too_large"),
    e.RequestTooLarge: (INVALID, "request_too_large"),
    e.UnsupportedMediaType: (INVALID, "unsupported_media_type"),
    e.RangeNotSatisfiable: (INVALID, "range_not_satisfiable"),
    e.ConcurrentLimit: ("requests", "rate_limit_exceeded"),
    e.RateLimit: ("requests", "rate_limit_exceeded"),
    e.QuotaExceeded: ("insufficient_quota", "insufficient_quota"),
    e.InternalError: (SERVER, "internal_error"),
    e.QueueFull: (SERVER, "queue_full"),
    e.Unavailable: (SERVER, "unavailable"),
}
"""`type` and `code` of each; the statuses are those of every other interface."""

_FIELDS = {"width": "size", "height": "size", "negative": "negative_prompt", "reference_images": "image"}
_IN_VAIN = (e.IdempotencyConflict, e.QuotaExceeded)
"""Statuses that the clients would try again, though it cannot help."""
_NOTHING_HERE = (
    "There is nothing at this path. Under /v1 there are POST /v1/images/generations and /v1/images/edits,"
    " GET /v1/models and /v1/models/{model}."
)


class OpenAiError(e.UmrgenError):
    """What only this interface says. `should_retry` tells the official clients what a retry would do."""

    code = "openai_error"

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        kind: str = INVALID,
        param: str | None = None,
        should_retry: bool | None = None,
        stage: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.own_code = code
        self.param = param
        self.should_retry = should_retry
        self.stage = stage

    def as_json(self) -> dict[str, object]:
        """The value of `error`."""
        details = {"moderation_details": {"categories": [], "moderation_stage": self.stage}} if self.stage else {}
        return {"message": self.message, "type": self.kind, "param": self.param, "code": self.own_code, **details}


def is_openai_path(path: str) -> bool:
    """Whether a request speaks this API."""
    return path == PREFIX or path.startswith(PREFIX + "/")


def openai_error_response(error: e.UmrgenError, headers: Mapping[str, str] | None = None) -> web.Response:
    """The answer for `error`, with the status and headers that it has everywhere."""
    if isinstance(error, OpenAiError):
        response = json_response({"error": error.as_json()}, error.status, headers)
        should_retry = error.should_retry
    else:
        response = error_response(error, headers)
        response.body = json.dumps({"error": describe_error(error)}, ensure_ascii=False).encode()
        should_retry = False if isinstance(error, _IN_VAIN) else None
    if should_retry is not None:
        response.headers[SHOULD_RETRY] = "true" if should_retry else "false"
    return response


def describe_error(error: e.UmrgenError) -> dict[str, object]:
    """The value of `error` for one of our own errors; one that HTTP does not know is an internal one."""
    if isinstance(error, OpenAiError):
        return error.as_json()
    if type(error) not in HTTP_ERRORS:
        error = INTERNAL
    kind, code = KINDS[type(error)]
    described: dict[str, object] = {"message": error.message, "type": kind, "param": None, "code": code}
    if isinstance(error, e.InvalidRequest):
        described |= _describe_problems(error)
    elif isinstance(error, e.SafetyViolation):
        field = str(error.extra["field"])
        described["param"] = _FIELDS.get(field, field)
        described["moderation_details"] = {"categories": [error.extra["category"]], "moderation_stage": "input"}
    elif isinstance(error, e.InvalidImage | e.FileTooLarge | e.ReferenceNotFound):
        described["param"] = "image"
    elif isinstance(error, e.NotFound):
        described["message"] = _NOTHING_HERE
    return described


def _describe_problems(error: e.InvalidRequest) -> dict[str, object]:
    """Message, param and code, in the names that this API has for the fields."""
    problems: list[dict[str, str]] = error.extra["errors"]  # type: ignore[assignment]
    named = [(_FIELDS.get(one["field"], one["field"]), _say(one["field"], one["problem"])) for one in problems]
    missing = problems[0]["problem"].startswith("is required")
    return {
        "message": "; ".join(f"{name}: {problem}" for name, problem in named),
        "param": named[0][0],
        "code": "missing_required_parameter" if missing else "invalid_value",
    }


def _say(field: str, problem: str) -> str:
    is_side = field in ("width", "height") and not problem.startswith("width")
    return f"the {field} {problem}" if is_side else problem


def explain_end(job: Job, *, named: bool) -> OpenAiError:
    """Why a job that has ended brought no picture. A `named` request would only find the same job again."""
    retry = bool(job.retryable) and not named
    message = f"{job.error or 'The job failed.'} (job {job.id})"
    if job.state is JobState.CANCELLED:
        return OpenAiError(409, "job_cancelled", f"The job {job.id} was cancelled.", should_retry=False)
    if job.error_code == ErrorCode.CONTENT_BLOCKED:
        return OpenAiError(400, "moderation_blocked", message, kind=BLOCKED, param="prompt", stage="output")
    if job.error_code == ErrorCode.INVALID_REFERENCE:
        return OpenAiError(400, "invalid_image_file", message, param="image")
    return OpenAiError(500, job.error_code or ErrorCode.MODEL_ERROR, message, kind=SERVER, should_retry=retry)
