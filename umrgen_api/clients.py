"""Where a request comes from. Only proxies that the owner has named are believed about others."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from aiohttp import web

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

PREFIX_BITS = {4: 24, 6: 56}
"""What one client can move within at will counts as one."""


def find_prefix(request: web.Request, trusted: Sequence[Network]) -> str:
    """The network that a request comes from, as text; "unknown" when it cannot be told."""
    address = find_address(request.remote, request.headers.getall("X-Forwarded-For", []), trusted)
    if address is None:
        return "unknown"
    return str(ipaddress.ip_network((address, PREFIX_BITS[address.version]), strict=False))


def find_address(peer: str | None, forwarded: Sequence[str], trusted: Sequence[Network]) -> Address | None:
    """The peer's address, or behind trusted proxies the last one that is not theirs.

    `forwarded` are the X-Forwarded-For headers in order; an entry that is no address ends the search.
    """
    address = _parse(peer or "")
    hops = [hop.strip() for header in forwarded for hop in header.split(",")]
    while address is not None and hops and any(address in network for network in trusted):
        further = _parse(hops.pop())
        if further is None:
            break
        address = further
    return address


def _parse(text: str) -> Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
