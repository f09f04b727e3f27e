"""Every error that the client raises on purpose.

UmrgenError                    `code`, `message`, `fields`, `retry_after`
├── NotConfigured              no URL or no key
├── Unreachable                no answer came: `code` is "unreachable"
├── BadAnswer                  an answer came that the service does not give, or a damaged file
├── Refused                    the service said no: `status`, `details`, `request_id`; one of these where one fits
│   ├── InvalidRequest
│   ├── SafetyViolation
│   ├── InvalidImage
│   ├── ReferenceNotFound
│   ├── Unauthorized
│   ├── Forbidden
│   ├── NotFound               no such job or file
│   ├── ConcurrentLimit        `details["job_id"]` is the job that must end first
│   ├── RateLimit
│   ├── QuotaExceeded
│   └── Unavailable            full or out of order for a while
├── JobFailed                  `job` ended as failed; `retryable`
├── JobCancelled               `job` was cancelled
└── WaitTimeout                `job` has not ended yet; it goes on
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from umrgen_client.records import JobStatus


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """What is wrong with one field of a request, its limit, and the nearest value that would work."""

    field: str
    problem: str
    limit: object = None
    nearest: object = None


class UmrgenError(Exception):
    """The root. `code` is stable snake_case, `message` says what to do, `retry_after` is in seconds."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        fields: Sequence[FieldProblem] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.fields = tuple(fields)
        self.retry_after = retry_after

    def as_json(self) -> dict[str, Any]:
        """The error in the form of the service's own answers."""
        answer: dict[str, Any] = {"success": False, "code": self.code, "message": self.message}
        return answer if self.retry_after is None else {**answer, "retry_after": self.retry_after}


class NotConfigured(UmrgenError):
    """No URL or no key was given, and the environment has none."""


class Unreachable(UmrgenError):
    """No answer came. Whether the request was carried out may be unknown; `job_id` is set when the job was accepted."""

    def __init__(self, message: str) -> None:
        super().__init__("unreachable", message)
        self.job_id: str | None = None


class BadAnswer(UmrgenError):
    """Something else than the service answered, or a file arrived damaged."""

    def __init__(self, message: str) -> None:
        super().__init__("bad_answer", message)


class Refused(UmrgenError):
    """The service said no. `details` is its whole answer, `request_id` what its log knows the request by."""

    def __init__(self, status: int, details: Mapping[str, Any], request_id: str, retry_after: float | None) -> None:
        problems = [
            FieldProblem(one.get("field", ""), one.get("problem", ""), one.get("limit"), one.get("nearest"))
            for one in details.get("errors", ())
        ]
        super().__init__(
            str(details.get("code", "unknown")),
            str(details.get("message", f"The service answered {status}.")),
            fields=problems,
            retry_after=retry_after,
        )
        self.status = status
        self.details = dict(details)
        self.request_id = request_id

    def as_json(self) -> dict[str, Any]:
        """The service's own answer."""
        return {**self.details, **super().as_json()}


class InvalidRequest(Refused):
    """A field is missing, of the wrong type or out of range; `fields` has each with the nearest value that works."""


class SafetyViolation(Refused):
    """The prompt holds blocked keywords; `details["category"]` says of which kind."""


class InvalidImage(Refused):
    """The upload is no image that the service takes; `details["reason"]` says why."""


class ReferenceNotFound(Refused):
    """A reference does not exist any more; upload it again."""


class Unauthorized(Refused):
    """The key is missing or not valid."""


class Forbidden(Refused):
    """The key may not do this."""


class NotFound(Refused):
    """No job or file of yours has this name; it may have expired."""


class ConcurrentLimit(Refused):
    """As many jobs are under way as you may have."""


class RateLimit(Refused):
    """More requests in a minute than you may make."""


class QuotaExceeded(Refused):
    """Your references or outputs are used up; the message says how to free some."""


class Unavailable(Refused):
    """The service is full or cannot take writes now."""


class JobFailed(UmrgenError):
    """The job ended as failed. `code` is its error_code; `retryable` says whether the same again may work."""

    def __init__(self, job: JobStatus) -> None:
        super().__init__(job.error_code or "model_error", job.error or "The job failed.")
        self.job = job
        self.retryable = bool(job.retryable)


class JobCancelled(UmrgenError):
    """The job was cancelled."""

    def __init__(self, job: JobStatus) -> None:
        super().__init__("cancelled", "The job was cancelled.")
        self.job = job


class WaitTimeout(UmrgenError):
    """The job has not ended within the time given. It goes on, and can be waited for again."""

    def __init__(self, job: JobStatus) -> None:
        super().__init__("wait_timeout", f"The job is {job.state} still; it goes on, and you may wait for it again.")
        self.job = job


BY_CODE: Mapping[str, type[Refused]] = {
    "invalid_request": InvalidRequest,
    "invalid_json": InvalidRequest,
    "request_too_large": InvalidRequest,
    "file_too_large": InvalidImage,
    "invalid_image": InvalidImage,
    "safety_violation": SafetyViolation,
    "reference_not_found": ReferenceNotFound,
    "unauthorized": Unauthorized,
    "forbidden": Forbidden,
    "job_not_found": NotFound,
    "not_found": NotFound,
    "concurrent_limit": ConcurrentLimit,
    "rate_limit": RateLimit,
    "quota_exceeded": QuotaExceeded,
    "queue_full": Unavailable,
    "unavailable": Unavailable,
}
"""The class of an answer's code. A code that is not here is a plain Refused."""
