"""Templates to pages: everything that is put in is escaped, and nothing runs or loads that is not of this server."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from aiohttp import hdrs, web
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from umrgen_api.console.sessions import PATH, SESSION
from umrgen_core.agents import Scope
from umrgen_core.clock import format_time

TEMPLATES = web.AppKey("console_templates", Environment)
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self';"
    " form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    # With no-referrer browsers would send "Origin: null" with forms, and say nothing of where they come from.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    hdrs.CACHE_CONTROL: "no-store",
}
_FOLDER = Path(__file__).with_name("templates")


def load_templates() -> Environment:
    """The templates, each compiled at its first use. A name that a page is not given is an error."""
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(console=PATH, Scope=Scope)
    environment.filters.update(time=format_time, moment=_say_moment)
    return environment


def show(request: web.Request, template: str, *, status: int = 200, **values: object) -> web.Response:
    """One page, or a part of one."""
    session = request.get(SESSION)
    text = request.app[TEMPLATES].get_template(template).render(session=session, **values)
    return web.Response(text=text, status=status, content_type="text/html", headers=HEADERS)


def lead_to(path: str) -> web.Response:
    """After a form: the page to look at next, which may be reloaded without doing the thing again."""
    return web.Response(status=303, headers={**HEADERS, hdrs.LOCATION: path})


def _say_moment(wall_us: int) -> str:
    """A time for people; scripts turn it into local time."""
    return datetime.fromtimestamp(wall_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M UTC")
