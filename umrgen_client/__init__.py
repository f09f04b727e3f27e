"""The Python client of an UMRGEN service: `Client`, and `AsyncClient` with the same calls.

Speaks HTTP only and needs nothing of the service's own packages.
"""

from umrgen_client.async_client import AsyncClient, AsyncJob
from umrgen_client.client import Client, Job
from umrgen_client.errors import (
    BadAnswer,
    ConcurrentLimit,
    FieldProblem,
    Forbidden,
    InvalidImage,
    InvalidRequest,
    JobCancelled,
    JobFailed,
    NotConfigured,
    NotFound,
    QuotaExceeded,
    RateLimit,
    ReferenceNotFound,
    Refused,
    SafetyViolation,
    UmrgenError,
    Unauthorized,
    Unavailable,
    Unreachable,
    WaitTimeout,
)
from umrgen_client.exchange import Retry
from umrgen_client.records import Event, JobStatus, Me, Model, Page, Picture, Progress, Range, Reference

__all__ = [
    "AsyncClient",
    "AsyncJob",
    "BadAnswer",
    "Client",
    "ConcurrentLimit",
    "Event",
    "FieldProblem",
    "Forbidden",
    "InvalidImage",
    "InvalidRequest",
    "Job",
    "JobCancelled",
    "JobFailed",
    "JobStatus",
    "Me",
    "Model",
    "NotConfigured",
    "NotFound",
    "Page",
    "Picture",
    "Progress",
    "QuotaExceeded",
    "Range",
    "RateLimit",
    "Reference",
    "ReferenceNotFound",
    "Refused",
    "Retry",
    "SafetyViolation",
    "UmrgenError",
    "Unauthorized",
    "Unavailable",
    "Unreachable",
    "WaitTimeout",
]
