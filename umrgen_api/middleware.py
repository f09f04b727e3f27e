"""What happens around every handler: request id, headers, errors, access, and the log line."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Callable, Mapping
from functools import partial

import structlog
from aiohttp import hdrs, web

from umrgen_api.access import AGENT, Handler, admit
from umrgen_api.console.errors import console_error_response, is_console_path
from umrgen_api.errors import INTERNAL, error_response, translate_http_exception
from umrgen_api.openai.errors import is_openai_path, openai_error_response
from umrgen_api.request_log import Answered, RequestLog
from umrgen_core.errors import UmrgenError, Unavailable
from umrgen_core.keys import is_well_formed
from umrgen_core.logs import get_logger

API_PREFIX = "/api/v1"
REQUEST_ID = web.RequestKey("request_id", str)
BEGAN = web.RequestKey("began", float)
ERROR_CODE = web.RequestKey("error_code", str)
REQUEST_LOG = web.AppKey("request_log", RequestLog)
CLIENT_GONE = 499
REQUEST_ID_HEADER = "X-Request-ID"
SERVER_NAME = "umrgen"
DRAIN_BYTES = 64 << 20
DRAIN_S = 10.0

LOG = get_logger("http")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


def choose_request_id(request: web.BaseRequest) -> str:
    """The client's own id where it is a safe one, else a new one."""
    offered = request.headers.get(REQUEST_ID_HEADER, "")
    is_safe = _REQUEST_ID.fullmatch(offered) and not is_well_formed(offered)  # ids are logged, keys are not
    # No secret: the kernel's randomness would cost a system call, and with it perhaps a switch to another thread.
    return offered if is_safe else f"{random.getrandbits(128):032x}"


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Signal before any response leaves: id and security headers; the server's name and version never."""
    response.headers[REQUEST_ID_HEADER] = request.get(REQUEST_ID) or choose_request_id(request)
    for name, value in SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)
    if request.path.startswith(API_PREFIX) or is_openai_path(request.path) or is_console_path(request.path):
        response.headers.setdefault(hdrs.CACHE_CONTROL, "no-store")
    if isinstance(response, web.FileResponse) and response.status >= 400:  # a precondition that failed: no picture
        response.headers[hdrs.CACHE_CONTROL] = "no-store"
        response.headers.popall(hdrs.CONTENT_TYPE, None)
    response.headers[hdrs.SERVER] = SERVER_NAME


@web.middleware
async def identify(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give the request its id, also in every event logged on its way."""
    request[REQUEST_ID] = choose_request_id(request)
    request[BEGAN] = time.perf_counter()
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id=request[REQUEST_ID])
    try:
        return await handler(request)
    except (asyncio.CancelledError, ConnectionError):
        await log_request(request, None)
        raise


async def log_request(request: web.Request, response: web.StreamResponse | None) -> None:
    """Signal before any response leaves, when its status is final: what there is to tell of a request.

    Without a response the client went away before there was one.
    """
    resource, agent = request.match_info.route.resource, request.get(AGENT)
    request.app[REQUEST_LOG].note(
        Answered(
            route=resource.canonical if resource else None,
            method=request.method,
            status=CLIENT_GONE if response is None else response.status,
            agent=agent.name if agent else None,
            duration_s=time.perf_counter() - request.get(BEGAN, time.perf_counter()),
            error_code=request.get(ERROR_CODE),
            waited="wait" in request.query_string or "Prefer" in request.headers,
        )
    )


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn whatever is raised into the contract's error, and let a client that still sends see it."""
    render = partial(_render_error, request)
    try:
        return await handler(request)
    except web.HTTPException as exception:
        if exception.status < 400:
            raise
        error, headers = translate_http_exception(exception)
        response = render(error, headers)
    except UmrgenError as error:
        response = render(error)
    except ConnectionError:
        raise  # the client has gone
    except OSError:
        LOG.exception("disk_refused")
        response = render(Unavailable("The disk cannot take writes now. Try again later."))
    except Exception:
        LOG.exception("internal_error")
        response = render(INTERNAL)
    if request.body_exists and not request.content.is_eof():
        await _answer_early(request, response)
    return response


def _render_error(request: web.Request, error: UmrgenError, headers: Mapping[str, str] | None = None) -> web.Response:
    request[ERROR_CODE] = error.code  # for whoever counts
    return _choose_rendering(request)(error, headers)


def _choose_rendering(request: web.Request) -> Callable[..., web.Response]:
    """How this path says errors: in the contract's JSON, in OpenAI's, or as a page for people."""
    if is_console_path(request.path):
        return partial(console_error_response, request)
    return openai_error_response if is_openai_path(request.path) else error_response


async def _answer_early(request: web.Request, response: web.Response) -> None:
    """Send the answer, then read on for a while: a close with bytes unread would reset the connection."""
    response.force_close()
    await response.prepare(request)
    await response.write_eof()
    left = DRAIN_BYTES
    try:
        async with asyncio.timeout(DRAIN_S):
            while left > 0 and (piece := await request.content.readany()):
                left -= len(piece)
    except TimeoutError:
        left = 0
    except (ConnectionError, web.RequestPayloadError):
        pass
    if left <= 0 and request.transport is not None:
        request.transport.abort()


@web.middleware
async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Nothing under /api/v1 and /v1 without a key, not even a 404."""
    if request.path == API_PREFIX or request.path.startswith(API_PREFIX + "/") or is_openai_path(request.path):
        await admit(request)
    return await handler(request)
