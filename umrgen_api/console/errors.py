"""What a person sees of an error: a page that says what to do; the console's scripts get the API's JSON."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from aiohttp import hdrs, web

from umrgen_api.console.pages import HEADERS, TEMPLATES, lead_to, show
from umrgen_api.console.sessions import PATH
from umrgen_api.errors import error_response
from umrgen_core.errors import UmrgenError, Unauthorized

API = f"{PATH}/api/"
SIGN_IN = f"{PATH}/sign-in"


def is_console_path(path: str) -> bool:
    """Whether a path is the console's."""
    return path == PATH or path.startswith(PATH + "/")


def console_error_response(
    request: web.Request, error: UmrgenError, headers: Mapping[str, str] | None = None
) -> web.Response:
    """The answer for `error` to who asked at /console."""
    answer = error_response(error, headers)
    if request.path.startswith(API) or TEMPLATES not in request.app:
        return answer
    if isinstance(error, Unauthorized):
        return lead_to(_sign_in_path(request))
    problem = error.message if answer.status != 500 else "Something broke here; it has been logged."
    page = show(request, "error.html", status=answer.status, problem=problem)
    page.headers.update({name: value for name, value in answer.headers.items() if name not in _OF_BODY})
    page.headers.update(HEADERS)
    return page


_OF_BODY = frozenset({hdrs.CONTENT_TYPE, hdrs.CONTENT_LENGTH})


def _sign_in_path(request: web.Request) -> str:
    """Where to sign in, and what was asked for, to come back to it."""
    is_worth_it = request.method == "GET" and request.path != PATH
    return f"{SIGN_IN}?next={quote(request.rel_url.raw_path_qs, safe='')}" if is_worth_it else SIGN_IN
