"""A span for every request, where the owner collects them."""

from __future__ import annotations

import asyncio
import time

from aiohttp import hdrs, web
from aiohttp.typedefs import Middleware

from umrgen_api.access import Handler
from umrgen_api.middleware import BEGAN, CLIENT_GONE, REQUEST_ID
from umrgen_core.clock import Clock
from umrgen_core.sections import TraceSettings
from umrgen_core.trace_context import TRACEPARENT_HEADER, choose_traceparent
from umrgen_core.tracing import SpanKind, Tracer, load_tracer

SPAN = web.RequestKey("traceparent", str)
BEHIND_IDENTIFY = 1
"""Place among the middlewares: everything but the choice of the request's id is within the span."""
OTHER_METHOD = "_OTHER"
"""For a method of the client's own making: names of spans are a closed set."""


def trace_requests(tracer: Tracer, clock: Clock) -> Middleware:
    """The middleware behind `identify`. Of a request only method, route and status are told, never its path."""

    @web.middleware
    async def trace(request: web.Request, handler: Handler) -> web.StreamResponse:
        method = request.method if request.method in hdrs.METH_ALL else OTHER_METHOD
        resource = request.match_info.route.resource
        told = {"http.request.method": method, "umrgen.request_id": request[REQUEST_ID]}
        if resource is not None:
            told["http.route"] = resource.canonical
        name = f"{method} {told['http.route']}" if resource else method
        began_ns = clock.wall_us() * 1000
        parent = choose_traceparent(request.headers.getall(TRACEPARENT_HEADER, ()))
        span = tracer.begin(name, SpanKind.SERVER, began_ns, parent, told)
        request[SPAN] = span.traceparent
        status = CLIENT_GONE
        try:
            response = await handler(request)
            status = response.status
        except web.HTTPException as redirection:
            status = redirection.status
            raise
        finally:
            # Wall time may leap while a request is answered.
            took_ns = int((time.perf_counter() - request[BEGAN]) * 1e9)
            span.end(began_ns + took_ns, {"http.response.status_code": status}, failed=status >= 500)
        return response

    return trace


def add_tracing(app: web.Application, settings: TraceSettings, clock: Clock) -> None:
    """Trace the requests of `app` where that is on. Raises ConfigError."""
    tracer = load_tracer(settings, "umrgen-api")
    if tracer is None:
        return
    app.middlewares.insert(BEHIND_IDENTIFY, trace_requests(tracer, clock))

    async def close(_: web.Application) -> None:
        await asyncio.to_thread(tracer.close)

    app.on_cleanup.append(close)


def read_traceparent(request: web.Request) -> str | None:
    """The span that a job of this request belongs to: the request's own, else the one that the client names."""
    if SPAN in request:
        return request[SPAN]
    return choose_traceparent(request.headers.getall(TRACEPARENT_HEADER, ()))
