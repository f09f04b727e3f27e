"""Whether the service says that it is ready."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request

from deploy.install import units
from deploy.install.places import InstallFailed

TIMEOUT_S = 60.0
POLL_S = 0.2


def find_url() -> str:
    """Where this box reaches the service; empty where its socket has no TCP address."""
    address = units.find_address()
    for everywhere, here in (("0.0.0.0:", "127.0.0.1:"), ("[::]:", "[::1]:")):
        if address.startswith(everywhere):
            address = here + address.removeprefix(everywhere)
    return address and f"http://{address}"


def ask_readiness() -> frozenset[str]:
    """Why the service is not ready; empty when it is, and where it cannot be asked."""
    return _ask()[0]


def find_settled() -> frozenset[str]:
    """What the service itself says is missing. That nobody answered is no such thing: it would excuse everything."""
    reasons, are_its_own = _ask()
    return reasons if are_its_own else frozenset()


def _ask() -> tuple[frozenset[str], bool]:
    """Why the service is not ready, and whether it said so itself."""
    url = find_url()
    if not url:
        return frozenset(), False
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # whatever http_proxy says
    try:
        with direct.open(f"{url}/readyz", timeout=10):
            return frozenset(), True
    except urllib.error.HTTPError as error:
        try:
            return frozenset(json.load(error)["reasons"]), True
        except (ValueError, KeyError, TypeError):
            return frozenset([str(error)]), False
    except (OSError, http.client.HTTPException) as error:
        return frozenset([str(error) or type(error).__name__]), False


def wait_ready(settled: frozenset[str] = frozenset(), timeout_s: float = TIMEOUT_S) -> None:
    """Wait until the service is ready but for what was settled before. Raises InstallFailed with what is missing."""
    deadline = time.monotonic() + timeout_s
    while missing := ask_readiness() - settled:
        if time.monotonic() > deadline:
            raise InstallFailed(f"{find_url()}/readyz is not ready after {timeout_s:g} s: {', '.join(missing)}")
        time.sleep(POLL_S)
