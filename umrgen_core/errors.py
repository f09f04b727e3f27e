"""Every error that UMRGEN raises on purpose.

UmrgenError                      has a stable `code`
├── ConfigError                  settings that cannot be used; stops the start
├── SchemaError                  the store was made by an older or newer UMRGEN
├── AccountError                 the owner named an agent, key or limit that cannot be
├── OperatorError                the owner asked for something about a job or the store that cannot be
├── RequestError                 an agent's fault; the web tier answers with it
│   ├── InvalidJson
│   ├── InvalidRequest           carries one FieldProblem for each field
│   ├── SafetyViolation
│   ├── InvalidImage
│   ├── ReferenceNotFound
│   ├── Unauthorized
│   ├── Forbidden
│   ├── JobNotFound
│   ├── NotFound
│   ├── MethodNotAllowed
│   ├── RequestTimeout
│   ├── IdempotencyConflict
│   ├── ReferenceInUse
│   ├── FileTooLarge
│   ├── RequestTooLarge
│   ├── UnsupportedMediaType
│   ├── RangeNotSatisfiable
│   ├── ConcurrentLimit
│   ├── RateLimit
│   ├── QuotaExceeded
│   └── QueueFull
├── Unavailable                  store or disk cannot take writes now; the outcome may be unknown
├── InternalError                a bug, as an agent sees it
├── StaleClaim                   the job is no longer this worker's
└── RunError                     a run that cannot succeed; becomes the job's error_code
"""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar

CANNOT_START = 2
"""Exit status of a process that another try would not help: settings, schema or address are wrong."""
PASSING = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.EBUSY}
)
"""What may be over by the next try: a full disk, too little memory, somebody in the way."""


def find_exit_status(error: Exception, *, was_ready: bool) -> int:
    """CANNOT_START, or 1 for what a supervisor should try again.

    A process that `was_ready` could start, so another try helps whatever ended it.
    """
    passes = isinstance(error, Unavailable) or (isinstance(error, OSError) and error.errno in PASSING)
    return 1 if was_ready or passes else CANNOT_START


class UmrgenError(Exception):
    """The root. `code` is stable snake_case; `message` says what to do about it."""

    code: ClassVar[str] = "internal_error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ConfigError(UmrgenError):
    """Settings that cannot be used. The message names key, problem and allowed values."""

    code = "config_error"


class SchemaError(UmrgenError):
    """The store's schema is not this version's. The message names both and the command to run."""

    code = "schema_error"


class AccountError(UmrgenError):
    """The owner named an agent, key or limit that cannot be. The message says what to name instead."""

    code = "account_error"


class OperatorError(UmrgenError):
    """The owner asked for something about a job or the store that cannot be. The message says what can."""

    code = "operator_error"


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """What is wrong with one field, its limit, and the nearest value that would work."""

    field: str
    problem: str
    limit: object = None
    nearest: object = None

    def as_json(self) -> dict[str, object]:
        """The problem as a JSON object; what does not apply is left out."""
        return {name: value for name, value in asdict(self).items() if value is not None}


class RequestError(UmrgenError):
    """A request that is refused. `extra` is added to the answer, `retry_after_s` makes it retryable."""

    def __init__(
        self,
        message: str,
        *,
        extra: Mapping[str, object] | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.extra = dict(extra or {})
        self.retry_after_s = retry_after_s


class InvalidJson(RequestError):
    """The body is not one JSON object in UTF-8."""

    code = "invalid_json"


class InvalidRequest(RequestError):
    """One or more fields are missing, of the wrong type or out of range."""

    code = "invalid_request"

    def __init__(self, problems: Sequence[FieldProblem]) -> None:
        sentence = "; ".join(f"{p.field}: {p.problem}" for p in problems)
        super().__init__(sentence, extra={"errors": [p.as_json() for p in problems]})


class SafetyViolation(RequestError):
    """Prompt or negative contains blocked keywords; only the category is told."""

    code = "safety_violation"

    def __init__(self, field: str, category: str) -> None:
        super().__init__(
            f"{field} contains blocked keywords (category: {category}). Reword it and try again.",
            extra={"category": category, "field": field},
        )


class InvalidImage(RequestError):
    """The upload is not an image that this service decodes; `reason` says why, `fate` in a word for the metrics."""

    code = "invalid_image"

    def __init__(self, reason: str, fate: str = "") -> None:
        super().__init__(f"The file cannot be used: {reason}", extra={"reason": reason})
        self.fate = fate


class ReferenceNotFound(RequestError):
    """A string in reference_images names no live reference or output of the agent."""

    code = "reference_not_found"

    def __init__(self, filename: str) -> None:
        super().__init__(
            "No live reference or output of yours has this name. Upload the image again"
            " and use the filename in the answer.",
            extra={"filename": filename},
        )


class Unauthorized(RequestError):
    """Missing, malformed, unknown, expired or revoked key: one answer for all of them."""

    code = "unauthorized"

    def __init__(self) -> None:
        super().__init__("Send a valid API key in the header 'Authorization: Bearer KEY'.")


class Forbidden(RequestError):
    """A file URL without its secret, or a key without the scope."""

    code = "forbidden"


class JobNotFound(RequestError):
    """Unknown, expired or somebody else's job."""

    code = "job_not_found"

    def __init__(self) -> None:
        super().__init__("No job of yours has this id; it may have expired. Submit it again if you need it.")


class NotFound(RequestError):
    """No such route, or no such file for one who may see it."""

    code = "not_found"


class MethodNotAllowed(RequestError):
    """The path exists, the method does not; the Allow header lists those that do."""

    code = "method_not_allowed"


class RequestTimeout(RequestError):
    """The body did not arrive in time."""

    code = "request_timeout"


class IdempotencyConflict(RequestError):
    """The same Idempotency-Key came with another body."""

    code = "idempotency_conflict"


class ReferenceInUse(RequestError):
    """A queued or running job names the reference."""

    code = "reference_in_use"


class FileTooLarge(RequestError):
    """The uploaded file is over the limit of a reference."""

    code = "file_too_large"


class RequestTooLarge(RequestError):
    """The JSON body is over its limit."""

    code = "request_too_large"


class UnsupportedMediaType(RequestError):
    """Wrong Content-Type, or any Content-Encoding."""

    code = "unsupported_media_type"


class RangeNotSatisfiable(RequestError):
    """The Range header asks for bytes that the file does not have."""

    code = "range_not_satisfiable"


class ConcurrentLimit(RequestError):
    """The agent has its limit of jobs queued or running."""

    code = "concurrent_limit"


class RateLimit(RequestError):
    """More requests in a minute than the agent may make."""

    code = "rate_limit"


class QuotaExceeded(RequestError):
    """The agent's references or outputs are used up."""

    code = "quota_exceeded"


class QueueFull(RequestError):
    """All agents together have as many queued jobs as the service takes."""

    code = "queue_full"


class Unavailable(UmrgenError):
    """Store or disk cannot take writes now. Whether the write happened may be unknown."""

    code = "unavailable"

    def __init__(self, message: str, *, retry_after_s: float = 2.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class InternalError(UmrgenError):
    """What an agent sees of a bug; the log has the rest under the request id."""

    code = "internal_error"


class StaleClaim(UmrgenError):
    """The job was given to another worker, cancelled or ended: drop the result."""

    code = "stale_claim"


class RunError(UmrgenError):
    """A run that ends its job as failed. `error_code` is one of umrgen_core.jobs.ErrorCode."""

    code = "run_error"

    def __init__(self, error_code: str, message: str, *, retryable: bool) -> None:
        super().__init__(message)
        self.error_code = error_code
        self.retryable = retryable
