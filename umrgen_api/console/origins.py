"""Where a browser's request comes from: this site itself, another one, through a proxy, over https."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from aiohttp import hdrs, web

from umrgen_api.access import came_through_proxy
from umrgen_api.services import services_of
from umrgen_core.errors import Forbidden

SECURE_COOKIE = "__Host-umrgen_console"
"""The prefix makes browsers refuse it from a sibling host or without https; it also demands the path /."""
_SAME_SITE = frozenset({"same-origin", "none"})


def require_own_origin(request: web.Request) -> None:
    """Raise Forbidden for a request that a page of another site made.

    Browsers say with every POST which page sent it; what says nothing is no browser, and holds no cookie.
    """
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in _SAME_SITE:
        raise Forbidden("This came from a page of another site. Open the console itself and try again there.")
    origin = request.headers.get(hdrs.ORIGIN)
    if origin is None or origin in _own_origins(request):
        return
    raise Forbidden(
        "This came from a page of another site, or a proxy changes the Host header: then set [api] public_url"
        " to the address in the browser."
    )


def _own_origins(request: web.Request) -> tuple[str, ...]:
    host = request.headers.get(hdrs.HOST, "")
    return (f"http://{host}", f"https://{host}", services_of(request).settings.api.public_url or "-")


def is_https(request: web.Request) -> bool:
    """Whether the browser speaks https, as far as that can be known."""
    origin = request.headers.get(hdrs.ORIGIN)
    if origin is not None:
        return origin.startswith("https://")
    api = services_of(request).settings.api
    if _is_from(request.remote, api.trusted_proxies):
        said = request.headers.get(hdrs.X_FORWARDED_PROTO, "").rpartition(",")[2].strip().lower()
        if said:
            return said == "https"
    return api.public_url == f"https://{request.headers.get(hdrs.HOST, '')}"


def _is_from(peer: str | None, networks: object) -> bool:
    try:
        address = ipaddress.ip_address(peer or "")
    except ValueError:
        return False
    return isinstance(networks, list) and any(address in network for network in networks)


def is_at_the_box(request: web.Request) -> bool:
    """Whether the browser runs on this machine, or at the end of an SSH tunnel to it.

    A proxy on this machine connects from loopback too, so what it says, and the name it was asked for, count as well.
    One that says nothing and asks for loopback is given away by what only the browser writes: the page that a form
    was sent from, and the cookie of a sign-in over https, which is none of the box's own.
    """
    return (
        not came_through_proxy(request)
        and _is_loopback(request.remote or "")
        and _is_loopback_host(request.headers.get(hdrs.HOST, ""))
        and _is_loopback_origin(request.headers.get(hdrs.ORIGIN))
        and SECURE_COOKIE not in request.cookies
    )


def _is_loopback_origin(origin: str | None) -> bool:
    """Whether a page of this machine sent it; what names no page may be anything, and passes."""
    if origin is None:
        return True
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and _is_loopback_host(parts.netloc)


def _is_loopback_host(host: str) -> bool:
    name = host.rpartition(":")[0] if ":" in host.rpartition("]")[2] else host
    return name.lower() == "localhost" or _is_loopback(name.strip("[]"))


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
