"""One attempt at a webhook: a POST to an address that was checked as the connection was opened, and nowhere else.

A name may resolve to another address each time it is asked for, so a check before the connection proves nothing.
Here it is made where the socket is: whatever URL, name or number led there, this is the address connected to.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from umrgen_core.sections import WebhookSettings
from umrgen_core.webhooks import is_public

MAX_ANSWER_BYTES = 64 << 10
READ_TIMEOUT_S = 10.0
USER_AGENT = "umrgen-webhooks"

LookUp = Callable[[str, int], Awaitable[list[str]]]
"""Host and port to addresses. Raises OSError."""
SocketAddress = tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int]]
"""As getaddrinfo gives it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an attempt: the status of the answer, if there was one, and a few words that name no host."""

    status: int | None
    text: str

    @property
    def accepted(self) -> bool:
        """Whether the receiver has it."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def gone(self) -> bool:
        """Whether the receiver wants no more of them."""
        return self.status == 410


class Sender:
    """Makes attempts. Ignores proxies, cookies, redirects and netrc."""

    def __init__(
        self, settings: WebhookSettings, look_up: LookUp | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        self._timeout_s = settings.timeout_s
        self._allow_private = settings.allow_private
        self._look_up = look_up or look_up_name
        self._tls = tls or True

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Outcome:
        """Send `body` once. Never raises for what a receiver, a network or a resolver does."""
        gate = _Gate(self._look_up, allow_private=self._allow_private)
        status, text = None, "the connection broke"
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._open_session(gate) as session,
                session.post(URL(url, encoded=True), data=body, headers=headers, allow_redirects=False) as response,
            ):
                status = response.status
                await _read_answer(response)
        except TimeoutError:
            text = f"no answer within {self._timeout_s:g} s"
        except (aiohttp.ClientError, OSError, ValueError) as error:  # ValueError: a URL that cannot be asked for
            text = "the address is not allowed" if gate.refused else _describe(error)
        return Outcome(status, text if status is None else f"answered {status}")

    def _open_session(self, gate: _Gate) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            resolver=gate, socket_factory=gate.open_socket, ssl=self._tls, use_dns_cache=False, force_close=True
        )
        return aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": USER_AGENT},
            skip_auto_headers=("Accept-Encoding",),
            auto_decompress=False,
            trust_env=False,
        )


class _Gate(AbstractResolver):
    """The way out of one attempt: resolves its name, and opens no socket to an address that is not allowed."""

    def __init__(self, look_up: LookUp, *, allow_private: bool) -> None:
        self._look_up = look_up
        self._allow_private = allow_private
        self.refused = False

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The addresses of a name."""
        found = await self._look_up(host, port)
        return [
            {"hostname": host, "host": address, "port": port, "family": family, "proto": 0, "flags": 0}
            for address in dict.fromkeys(found)
        ]

    async def close(self) -> None:
        """Nothing is held."""

    def open_socket(self, target: SocketAddress) -> socket.socket:
        """A socket for this address. Raises PermissionError where it may not go."""
        family, kind, protocol, _, address = target
        if not self._allow_private and not _is_allowed(address[0]):
            self.refused = True
            raise PermissionError(errno.EACCES, "the address is not allowed")
        return socket.socket(family, kind, protocol)


def _is_allowed(address: str) -> bool:
    try:
        return is_public(address)
    except ValueError:  # not an address: the system would read it as one in its own way
        return False


async def look_up_name(host: str, port: int) -> list[str]:
    """Ask the system's resolver, in a thread of its own: a slow answer holds up no other look-up, and no exit."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[list[str]] = loop.create_future()

    def answer(found: list[str] | None, error: Exception | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(found or [])

    def work() -> None:
        found, problem = None, None
        try:
            found = [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        except (OSError, UnicodeError) as error:
            problem = OSError(error.args[0] if isinstance(error, OSError) else errno.EINVAL, "not found")
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(answer, found, problem)

    threading.Thread(target=work, name="webhook-look-up", daemon=True).start()
    return await future


async def _read_answer(response: aiohttp.ClientResponse) -> None:
    """Let the receiver finish a short answer; what it says does not matter."""
    left = MAX_ANSWER_BYTES
    with suppress(TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout(READ_TIMEOUT_S):
            while left > 0 and (chunk := await response.content.read(left)):
                left -= len(chunk)


def _describe(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "the certificate is not valid for the name"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "the name was not found"
    if isinstance(error, aiohttp.ClientSSLError):
        return "TLS failed"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"no connection ({errno.errorcode.get(error.os_error.errno or 0, 'unknown')})"
    return f"the connection broke ({type(error).__name__})"
