"""Spans by OpenTelemetry's SDK, sent over OTLP/HTTP. Imported only where tracing is on."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context
from opentelemetry.trace import Span as OtelSpan
from opentelemetry.trace import SpanKind as OtelKind
from opentelemetry.trace.status import StatusCode

from umrgen_core import __version__
from umrgen_core.logs import get_logger
from umrgen_core.trace_context import TraceContext, parse_traceparent
from umrgen_core.tracing import Attributes, Span, SpanKind

TRACES_PATH = "/v1/traces"
CLOSE_S = 3.0
QUEUE_SPANS = 4096
"""Spans that wait to be sent, at most; more are dropped."""
KINDS = {
    SpanKind.SERVER: OtelKind.SERVER,
    SpanKind.CONSUMER: OtelKind.CONSUMER,
    SpanKind.INTERNAL: OtelKind.INTERNAL,
}

LOG = get_logger("trace")


class OtlpTracer:
    """The SDK's own variables (OTEL_EXPORTER_OTLP_HEADERS, OTEL_TRACES_SAMPLER, OTEL_BSP_*) count as well."""

    def __init__(self, endpoint: str, service: str) -> None:
        # The SDK tells of every batch that could not be sent; we tell of the first.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL + 1)
        resource = Resource.create(
            {"service.name": service, "service.version": __version__, "service.instance.id": str(os.getpid())}
        )
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        exporter = _ToldOnce(OTLPSpanExporter(endpoint=endpoint.rstrip("/") + TRACES_PATH))
        self._provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=QUEUE_SPANS))
        self._tracer = self._provider.get_tracer("umrgen", __version__)

    def begin(
        self, name: str, kind: SpanKind, began_ns: int, parent: str | None = None, attributes: Attributes | None = None
    ) -> Span:
        """See Tracer."""
        context = _enter(parse_traceparent(parent) if parent else None)
        return _Span(self._tracer.start_span(name, context, KINDS[kind], dict(attributes or {}), start_time=began_ns))

    def close(self) -> None:
        """See Tracer. The SDK would wait for half a minute where nobody takes the spans."""
        thread = threading.Thread(target=self._provider.shutdown, daemon=True)
        thread.start()
        thread.join(CLOSE_S)


class _Span:
    __slots__ = ("_span",)

    def __init__(self, span: OtelSpan) -> None:
        self._span = span

    @property
    def traceparent(self) -> str:
        context = self._span.get_span_context()
        return str(TraceContext(context.trace_id, context.span_id, context.trace_flags.sampled))

    def end(self, ended_ns: int, attributes: Attributes, *, failed: bool = False) -> None:
        self._span.set_attributes(dict(attributes))
        if failed:
            self._span.set_status(StatusCode.ERROR)
        self._span.end(ended_ns)


def _enter(parent: TraceContext | None) -> Context:
    """The context below a parent; without one that of a new trace, whatever the thread is busy with."""
    if parent is None:
        return Context()
    flags = TraceFlags(TraceFlags.SAMPLED if parent.sampled else TraceFlags.DEFAULT)
    named = SpanContext(parent.trace_id, parent.span_id, is_remote=True, trace_flags=flags)
    return set_span_in_context(NonRecordingSpan(named), Context())


class _ToldOnce(SpanExporter):
    """Logs when spans begin to be lost and when they arrive again, and nothing in between."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._lost = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Called in the SDK's thread."""
        result = self._exporter.export(spans)
        if result is SpanExportResult.SUCCESS:
            if self._lost:
                LOG.info("spans_sent_again", lost=self._lost)
            self._lost = 0
            return result
        if not self._lost:
            LOG.warning("spans_lost", lost=len(spans))
        self._lost += len(spans)
        return result

    def shutdown(self) -> None:
        """Nothing more is sent."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing is kept here."""
        return self._exporter.force_flush(timeout_millis)
