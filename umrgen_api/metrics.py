"""What the web tier counts: requests, refusals, uploads, and who waits."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from umrgen_api.errors import HTTP_ERRORS
from umrgen_api.fates import Fate
from umrgen_core.metrics.labels import OTHER, REQUEST_BUCKETS_S
from umrgen_core.metrics.store import StoreMeter

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
NO_ROUTE = "none"
"""The route of a request that leads nowhere."""
CLASSES = ("1xx", "2xx", "3xx", "4xx", "5xx")
UPLOAD_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class WebMetrics(StoreMeter):
    """Counts, in a registry that it is given. Requests are counted in the event loop, the store's work in its threads.

    Routes are templates of the router's own, methods and codes closed sets: no request makes a series of its own.
    """

    def __init__(self, registry: CollectorRegistry, served: Iterable[str]) -> None:
        super().__init__(registry, served)
        self.registry = registry
        self._requests = Counter(
            "umrgen_http_requests", "Requests answered, by route.", ["route", "method", "status"], registry=registry
        )
        self._seconds = Histogram(
            "umrgen_http_request_seconds",
            "From the head of a request to the head of its answer; those that asked to wait are left out.",
            ["route"],
            buckets=REQUEST_BUCKETS_S,
            registry=registry,
        )
        self._refused = Counter(
            "umrgen_http_refused", "Requests answered with an error, by its code.", ["code"], registry=registry
        )
        for error in HTTP_ERRORS:
            self._refused.labels(error.code)
        self._counted: dict[tuple[str, str, int], Counter] = {}
        self._timed: dict[str, Histogram] = {}
        self._make_upload_metrics()

    def _make_upload_metrics(self) -> None:
        self._uploads = Counter(
            "umrgen_uploads_sanitised",
            "Uploads by what the sanitiser made of them.",
            ["result"],
            registry=self.registry,
        )
        for fate in Fate:
            self._uploads.labels(fate)
        self._upload_seconds = Histogram(
            "umrgen_upload_sanitise_seconds",
            "Time in the sanitiser, with the wait for a child.",
            buckets=UPLOAD_BUCKETS_S,
            registry=self.registry,
        )

    def watch_waiting(self, count: Callable[[], int]) -> None:
        """Show how many requests and streams wait for a change of a job."""
        waiting = Gauge(
            "umrgen_http_waiting", "Requests and event streams that wait for a job.", registry=self.registry
        )
        waiting.set_function(count)

    def note_answer(
        self, route: str | None, method: str, status: int, duration_s: float, code: str | None, *, waited: bool
    ) -> None:
        """A request has its answer, or its client has gone; `code` is that of an error."""
        route = route or NO_ROUTE
        key = (route, method, status // 100)
        counter = self._counted.get(key)
        if counter is None:
            label = method if method in METHODS else OTHER
            counter = self._counted[route, label, status // 100] = self._requests.labels(
                route, label, CLASSES[status // 100 - 1]
            )
        counter.inc()
        if code is not None:
            self._refused.labels(code).inc()
        if not waited:
            self._time(route).observe(duration_s)

    def _time(self, route: str) -> Histogram:
        timed = self._timed.get(route)
        if timed is None:
            timed = self._timed[route] = self._seconds.labels(route)
        return timed

    def note_upload(self, fate: Fate, took_s: float) -> None:
        """The sanitiser is done with an upload."""
        self._uploads.labels(fate).inc()
        self._upload_seconds.observe(took_s)
