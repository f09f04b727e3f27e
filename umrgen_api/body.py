"""Request bodies: read with a cap and a deadline, and parsed without trust."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import hdrs, web
from aiohttp.http_exceptions import HttpProcessingError

from umrgen_api.services import services_of
from umrgen_core.errors import (
    FieldProblem,
    InvalidJson,
    InvalidRequest,
    RequestTimeout,
    RequestTooLarge,
    UnsupportedMediaType,
)

MAX_JSON_BYTES = 64 * 1024
MAX_JSON_DEPTH = 32


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON.")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
_ENCODER = json.JSONEncoder(ensure_ascii=False)
"""json.loads and json.dumps with arguments of ours would make one for each body."""


def require_media_type(request: web.Request, media_type: str) -> None:
    """Raise UnsupportedMediaType unless the body is plain `media_type`."""
    if request.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
        raise UnsupportedMediaType("Send the body as it is, without Content-Encoding.")
    # Not request.content_type: the mail parser behind it takes seconds for some headers and raises for others.
    named = request.headers.get(hdrs.CONTENT_TYPE, "").partition(";")[0].strip().lower()
    if named != media_type:
        raise UnsupportedMediaType(f"Send Content-Type: {media_type}.")


async def iterate_body(request: web.Request) -> AsyncIterator[bytes]:
    """The body in pieces. Raises RequestTimeout, or InvalidRequest when its framing is broken."""
    limit_s = services_of(request).settings.api.body_timeout_s
    deadline = asyncio.get_running_loop().time() + limit_s
    while piece := await _read_piece(request, deadline, limit_s):
        yield piece


async def _read_piece(request: web.Request, deadline: float, limit_s: float) -> bytes:
    try:
        if request.content.is_eof():  # all of it is here, so there is nothing to wait for
            return await request.content.readany()
        async with asyncio.timeout_at(deadline):
            return await request.content.readany()
    except TimeoutError:
        raise RequestTimeout(f"The body did not arrive within {limit_s:g} s. Send it again.") from None
    except (HttpProcessingError, web.RequestPayloadError):
        raise InvalidRequest([FieldProblem("request", "the body's length or chunks are broken")]) from None


async def read_json(request: web.Request) -> dict[str, Any]:
    """The body as one JSON object. Raises UnsupportedMediaType, RequestTooLarge, RequestTimeout, InvalidJson."""
    require_media_type(request, "application/json")
    too_large = RequestTooLarge(
        f"A JSON body may have at most {MAX_JSON_BYTES} bytes.", extra={"limit": MAX_JSON_BYTES}
    )
    if (request.content_length or 0) > MAX_JSON_BYTES:
        raise too_large
    body = bytearray()
    async for piece in iterate_body(request):
        body += piece
        if len(body) > MAX_JSON_BYTES:
            raise too_large
    return parse_json(bytes(body))


def parse_json(body: bytes) -> dict[str, Any]:
    """One JSON object in UTF-8, shallow, without NaN, huge integers or lone surrogates. Raises InvalidJson."""
    try:
        text = body.decode("utf-8")
        if text.startswith("\ufeff"):
            raise InvalidJson("The body is not JSON: Unexpected UTF-8 BOM at character 0.")
        value = _DECODER.decode(text)
        if "\\u" in text:  # UTF-8 itself holds no surrogates: only an escape can bring one
            _ENCODER.encode(value).encode("utf-8")
    except UnicodeDecodeError:
        raise InvalidJson("The body is not UTF-8.") from None
    except UnicodeEncodeError:
        raise InvalidJson("A string holds half of a surrogate pair; send whole characters.") from None
    except json.JSONDecodeError as error:
        problem = error.msg.partition(" (")[0]  # what follows in brackets is advice to Python programmers
        raise InvalidJson(f"The body is not JSON: {problem} at character {error.pos}.") from None
    except RecursionError:
        raise InvalidJson("The JSON is nested too deeply.") from None
    except ValueError:
        raise InvalidJson("The JSON holds NaN, Infinity or a number of thousands of digits.") from None
    if not isinstance(value, dict):
        raise InvalidJson("Send one JSON object: {…}.")
    if _depth(value) > MAX_JSON_DEPTH:
        raise InvalidJson(f"The JSON is nested more than {MAX_JSON_DEPTH} deep.")
    return value


def _depth(value: object) -> int:
    deepest, stack = 0, [(value, 1)]
    while stack:
        item, depth = stack.pop()
        deepest = max(deepest, depth)
        children = item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
        stack += [(child, depth + 1) for child in children if isinstance(child, dict | list)]
    return deepest
