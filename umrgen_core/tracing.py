"""Spans, for those who collect them: what the two processes ask of a tracer, and whether there is one.

Off by default, and then nothing of OpenTelemetry is imported.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from enum import StrEnum
from typing import Protocol

from umrgen_core.errors import ConfigError
from umrgen_core.sections import TraceSettings

IMPLEMENTATION = "umrgen_core.otlp"
INSTALL = "pip install --constraint constraints.txt --editable '.[otel]'"

Attributes = Mapping[str, str | int | float | bool]
"""Never prompts, keys, or URLs and names of files."""


class SpanKind(StrEnum):
    """What a span is of, in OpenTelemetry's words."""

    SERVER = "server"
    """A request that is answered."""
    CONSUMER = "consumer"
    """Work that a request left behind."""
    INTERNAL = "internal"
    """A part of either."""


class Span(Protocol):
    """Something that takes time, and has begun."""

    @property
    def traceparent(self) -> str:
        """By which others name it as their parent."""

    def end(self, ended_ns: int, attributes: Attributes, *, failed: bool = False) -> None:
        """It is over. Costs no more than putting it into a queue."""


class Tracer(Protocol):
    """Makes spans, and sends them in a thread of its own. What goes wrong with that troubles nobody else."""

    def begin(
        self, name: str, kind: SpanKind, began_ns: int, parent: str | None = None, attributes: Attributes | None = None
    ) -> Span:
        """Begin a span, or with no `parent` (a traceparent) a trace. `began_ns` is wall time since 1970."""

    def close(self) -> None:
        """Send what waits, for a few seconds at most. Blocks."""


def load_tracer(settings: TraceSettings, service: str) -> Tracer | None:
    """The tracer of a process (such as "umrgen-api"); None where tracing is off.

    Raises ConfigError when the packages that it needs are missing.
    """
    if not settings.endpoint:
        return None
    try:
        module = importlib.import_module(IMPLEMENTATION)  # by name: optional packages, only when they are asked for
    except ImportError as error:
        raise ConfigError(
            f"[trace] endpoint: tracing needs packages that cannot be imported ({error});"
            f' in the checkout run {INSTALL}, or set it to ""'
        ) from None
    tracer: Tracer = module.OtlpTracer(settings.endpoint, service)
    return tracer
