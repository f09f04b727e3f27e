"""Error code to HTTP, in one place."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web

from umrgen_core import errors as e


@dataclass(frozen=True, slots=True)
class HttpError:
    """Status and the guide's `error` string of one error class."""

    status: int
    error: str


HTTP_ERRORS: Mapping[type[e.UmrgenError], HttpError] = {
    e.InvalidJson: HttpError(400, "Invalid JSON"),
    e.InvalidRequest: HttpError(400, "Invalid request"),
    e.SafetyViolation: HttpError(400, "Safety violation"),
    e.InvalidImage: HttpError(400, "Invalid image"),
    e.ReferenceNotFound: HttpError(400, "Reference not found"),
    e.Unauthorized: HttpError(401, "Unauthorized"),
    e.Forbidden: HttpError(403, "Forbidden"),
    e.JobNotFound: HttpError(404, "Job not found"),
    e.NotFound: HttpError(404, "Not found"),
    e.MethodNotAllowed: HttpError(405, "Method not allowed"),
    e.RequestTimeout: HttpError(408, "Request timeout"),
    e.IdempotencyConflict: HttpError(409, "Idempotency conflict"),
    e.ReferenceInUse: HttpError(409, "Reference in use"),
    e.FileTooLarge: HttpError(413, "File exceeds limit"),
    e.RequestTooLarge: HttpError(413, "Request too large"),
    e.UnsupportedMediaType: HttpError(415, "Unsupported media type"),
    e.RangeNotSatisfiable: HttpError(416, "Range not satisfiable"),
    e.ConcurrentLimit: HttpError(429, "CONCURRENT_LIMIT"),
    e.RateLimit: HttpError(429, "RATE_LIMIT"),
    e.QuotaExceeded: HttpError(429, "QUOTA_EXCEEDED"),
    e.InternalError: HttpError(500, "Internal error"),
    e.QueueFull: HttpError(503, "Queue is full"),
    e.Unavailable: HttpError(503, "Unavailable"),
}

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
"""json.dumps with arguments of ours would make one for each answer."""
INTERNAL = e.InternalError("Something broke here; it has been logged under this request's X-Request-ID.")


def json_response(
    body: Mapping[str, object], status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """`body` as UTF-8 JSON."""
    return web.Response(
        body=_ENCODER.encode(body).encode("utf-8", "surrogatepass"),
        status=status,
        headers=headers,
        content_type="application/json",
        charset="utf-8",
    )


def error_response(error: e.UmrgenError, headers: Mapping[str, str] | None = None) -> web.Response:
    """The answer for `error`. One that HTTP does not know is an internal error."""
    known = HTTP_ERRORS.get(type(error))
    if known is None:
        return error_response(INTERNAL, headers)
    body: dict[str, object] = {
        "success": False,
        "error": known.error,
        "code": error.code,
        "message": error.message,
        **getattr(error, "extra", {}),
    }
    all_headers = dict(headers or {})
    retry_after_s = getattr(error, "retry_after_s", None)
    if retry_after_s is not None:
        body["retry_after"] = round(max(retry_after_s, 0.1), 1)
        all_headers["Retry-After"] = str(max(1, math.ceil(retry_after_s)))
    if isinstance(error, e.RangeNotSatisfiable):
        all_headers["Content-Range"] = f"bytes */{error.extra['bytes']}"
    if known.status == 401:
        all_headers["WWW-Authenticate"] = "Bearer"
    return json_response(body, known.status, all_headers)


def translate_http_exception(exception: web.HTTPException) -> tuple[e.UmrgenError, dict[str, str]]:
    """Aiohttp's own answers (no route, wrong method, …) as ours, with headers to keep."""
    if isinstance(exception, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(exception.allowed_methods))
        return e.MethodNotAllowed(f"This path takes {allowed}."), {"Allow": allowed}
    if exception.status == 404:
        return e.NotFound("There is nothing at this path; the API begins at /api/v1."), {}
    if exception.status == 413:
        return e.RequestTooLarge("The body is larger than this path takes."), {}
    if exception.status == 415:
        return e.UnsupportedMediaType("This path does not take such a body."), {}
    if 400 <= exception.status < 500:
        return e.InvalidRequest([e.FieldProblem("request", "is not valid HTTP for this path")]), {}
    return INTERNAL, {}
