"""What a webhook is: where it may go, how it is named, and when it is tried again. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

from umrgen_core.jobs import Job

MAX_CALLBACK_CHARS = 2048
RETRY_DELAYS_S = (5, 60, 600, 3600, 3 * 3600, 8 * 3600, 12 * 3600)
"""How long after each failed attempt the next one follows; behind the last, none does."""
MAX_ATTEMPTS = len(RETRY_DELAYS_S) + 1
JITTER = 0.2
"""Each delay is longer by a random share up to this one, so that what failed together is not tried together."""
ID_PREFIX = "msg_"

_VISIBLE = re.compile(r"[\x21-\x7e]*")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,253}")

# Blocks that are set aside (IANA's registries of special-purpose addresses) and that ipaddress lets pass.
# 168.63.129.16 is in none: a cloud's host answers there for every machine of its own, its settings among the answers.
_SET_ASIDE = tuple(map(ip_network, ("100.64.0.0/10", "168.63.129.16/32", "192.0.0.0/24", "192.31.196.0/24",
    "192.52.193.0/24", "192.88.99.0/24", "192.175.48.0/24", "198.18.0.0/15", "240.0.0.0/4",
    "2001::/23", "2002::/16", "2620:4f:8000::/48", "3fff::/20")))  # fmt: skip
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_TRANSLATED = IPv6Network("64:ff9b::/96")
"""An IPv4 address behind a translator (RFC 6052): judged by its last 32 bits."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """An attempt that this process holds under `fence`: an ended job, and what its signature hangs on."""

    job: Job
    callback_url: str
    attempts: int
    """This one included."""
    fence: int
    session_id: str
    secret_version: int
    secret_rotated_at_us: int | None


def name_webhook(job_id: str) -> str:
    """The `webhook-id`: one for each job, the same at every attempt and replay."""
    return ID_PREFIX + job_id


def find_callback_problem(url: str, *, allow_http: bool, allow_private: bool) -> str | None:
    """What keeps `url` from being a callback, or None. A name is resolved at each attempt, and judged then."""
    if not _VISIBLE.fullmatch(url) or "\\" in url:
        return "must be a URL in visible ASCII: percent-encode the rest, write a host of other letters as xn--"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "must be a URL such as https://agent.example/hook"
    allowed = ("https", "http") if allow_http else ("https",)
    if parts.scheme not in allowed:
        return f"must begin with {' or '.join(f'{scheme}://' for scheme in allowed)}"
    if "@" in parts.netloc:
        return "must hold no user name or password; put a secret into the path or query"
    if not _is_host(host) or port == 0:
        return "must be a URL such as https://agent.example/hook"
    if not allow_private and _is_refused_literal(host):
        return "must not be the address of a private, local or reserved network"
    return None


def _is_host(host: str) -> bool:
    if ":" not in host:
        return _NAME.fullmatch(host) is not None
    try:
        return "%" not in host and bool(ip_address(host))
    except ValueError:
        return False


def _is_refused_literal(host: str) -> bool:
    try:
        return not is_public(host)
    except ValueError:  # a name; but one of digits alone would be read as an address by some
        return host.replace(".", "").isdigit()


def is_public(text: str) -> bool:
    """Whether an address is one of the open internet's, for a single receiver. Raises ValueError for what is none."""
    address = ip_address(text)
    if isinstance(address, IPv6Address) and address in _TRANSLATED:
        address = IPv4Address(int(address) & 0xFFFFFFFF)
    if address.is_multicast or address.is_reserved or not address.is_global:
        return False
    if isinstance(address, IPv6Address) and address not in _GLOBAL_UNICAST:
        return False
    return not any(address in block for block in _SET_ASIDE if block.version == address.version)


def choose_delay_s(attempts: int, draw: Callable[[], float]) -> float | None:
    """Seconds until the next attempt after `attempts` failed ones, None behind the last. `draw` gives 0 to 1."""
    if attempts > len(RETRY_DELAYS_S):
        return None
    return RETRY_DELAYS_S[attempts - 1] * (1 + JITTER * draw())
