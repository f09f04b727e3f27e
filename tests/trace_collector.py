"""A collector of OTLP over HTTP, as small as one can be: it keeps what it is sent."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

POLL_S = 0.02


class Collector:
    """Spans by the service that sent them, and every body as it came."""

    def __init__(self) -> None:
        self.url = ""
        self.status = 200
        self.bodies: list[bytes] = []
        self._spans: list[tuple[str, Span]] = []
        self._lock = threading.Lock()

    def take(self, path: str, body: bytes) -> int:
        with self._lock:
            self.bodies.append(body)
            if self.status != 200:
                return self.status
            if path != "/v1/traces":
                return 404
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                service = attributes_of(resource.resource)["service.name"]
                self._spans += [(service, span) for scope in resource.scope_spans for span in scope.spans]
        return 200

    def spans(self, service: str) -> list[Span]:
        with self._lock:
            return [span for sender, span in self._spans if sender == service]

    def wait_for(self, service: str, suits: Callable[[Span], bool], timeout_s: float = 10.0) -> Span:
        """The first span of a service that suits."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            for span in self.spans(service):
                if suits(span):
                    return span
            time.sleep(POLL_S)
        raise AssertionError(f"none within {timeout_s:g} s among {[span.name for span in self.spans(service)]}")


def attributes_of(told: object) -> dict[str, str | int]:
    """Attributes of a span or a resource."""
    pairs = ((pair.key, pair.value) for pair in told.attributes)  # type: ignore[attr-defined]
    return {key: getattr(value, value.WhichOneof("value")) for key, value in pairs}


@contextlib.contextmanager
def open_collector() -> Iterator[Collector]:
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(collector.take(self.path, body))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    collector.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": POLL_S}, daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
