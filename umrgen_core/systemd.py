"""What systemd and a service say to each other: readiness, status, signs of life, and sockets that listen already.

The protocol is that of sd_notify(3), sd_watchdog_enabled(3) and sd_listen_fds(3): datagrams of NAME=VALUE lines to
the socket that the environment names, and descriptors from 3 on. Where the variables are not there, nothing is said
and nothing is found: the same process runs in a terminal.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

from umrgen_core.errors import ConfigError

FIRST_FD = 3
SEND_TIMEOUT_S = 0.5
"""systemd that takes nothing for so long is not waited for: serving comes first."""
BEATS = 10
"""Signs of life in each stretch that systemd waits for one."""


class Notifier:
    """The line to systemd. Any thread may speak; what does not get through is lost."""

    def __init__(self, address: str = "", watchdog_s: float = 0.0, now_s: Callable[[], float] = time.monotonic) -> None:
        """`address` is a path, or @NAME for an abstract socket; "" for nobody. `watchdog_s` is 0 for no watchdog."""
        self.watchdog_s = watchdog_s if address else 0.0
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket: socket.socket | None = None
        self._now_s = now_s
        self._beaten_at_s = float("-inf")
        self._status = ""
        self.is_ready = False
        """Whether the start was over once; also where nobody hears of it."""
        if address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.settimeout(SEND_TIMEOUT_S)

    @property
    def is_heard(self) -> bool:
        """Whether there is anybody to speak to."""
        return self._socket is not None

    def ready(self) -> None:
        """The start is over, and the service does what it is there for."""
        self.is_ready = True
        self._send("READY=1")

    def stopping(self) -> None:
        """The end has begun."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """One line for people, shown by `systemctl status`; sent only when it has changed."""
        line = " ".join(text.split())
        if line != self._status:
            self._status = line
            self._send(f"STATUS={line}")

    def beat(self) -> None:
        """A sign of life. Call it as often as you like: systemd hears of few."""
        now_s = self._now_s()
        if self.watchdog_s and now_s - self._beaten_at_s >= self.watchdog_s / BEATS:
            self._beaten_at_s = now_s
            self._send("WATCHDOG=1")

    @contextmanager
    def patience(self, limit_s: float) -> Iterator[None]:
        """What is inside gives no sign of life: systemd waits `limit_s` for its end, never less than else.

        Before readiness it has no effect: the time of a start has a bound of its own.
        """
        if not (self.watchdog_s and self.is_ready):
            yield
            return
        self._send(f"WATCHDOG_USEC={round(max(limit_s, self.watchdog_s) * 1e6)}\nWATCHDOG=1")
        try:
            yield
        finally:
            self._send(f"WATCHDOG_USEC={round(self.watchdog_s * 1e6)}\nWATCHDOG=1")

    def close(self) -> None:
        """Say nothing more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, message: str) -> None:
        if self._socket is not None:
            with suppress(OSError):  # systemd notices by itself what it is not told
                self._socket.sendto(message.encode(), self._address)


def find_notifier(environment: Mapping[str, str] = os.environ) -> Notifier:
    """The line to systemd that the environment describes; one to nobody where there is none."""
    address = environment.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return Notifier()
    watchdog_us = environment.get("WATCHDOG_USEC", "")
    is_ours = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return Notifier(address, int(watchdog_us) / 1e6 if is_ours and watchdog_us.isdecimal() else 0.0)


def take_sockets(environment: Mapping[str, str] = os.environ, first_fd: int = FIRST_FD) -> list[socket.socket]:
    """The sockets that systemd listens on for this process. Raises ConfigError for one that no server can serve."""
    count = environment.get("LISTEN_FDS", "")
    if environment.get("LISTEN_PID") != str(os.getpid()) or not count.isdecimal():
        return []
    return [_take_socket(fd) for fd in range(first_fd, first_fd + int(count))]


def _take_socket(fd: int) -> socket.socket:
    try:
        os.set_inheritable(fd, False)  # noqa: FBT003 - its signature
        taken = socket.socket(fileno=fd)
        listens = taken.type == socket.SOCK_STREAM and taken.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise ConfigError(f"descriptor {fd} of LISTEN_FDS: {error.strerror}") from None
    if taken.family not in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6):
        family = getattr(taken.family, "name", f"address family {taken.family}")
        raise ConfigError(f"descriptor {fd} of LISTEN_FDS: {family} is not served, only TCP and UNIX sockets are")
    if not listens:
        raise ConfigError(f"descriptor {fd} of LISTEN_FDS: no listening stream; see ListenStream= of the socket unit")
    return taken


def describe_address(listening: socket.socket) -> tuple[str, int]:
    """Host and port that a socket listens on; of a UNIX socket its path and 0."""
    name = listening.getsockname()
    if listening.family == socket.AF_UNIX:
        return (name.decode(errors="replace") if isinstance(name, bytes) else str(name)), 0
    return str(name[0]), int(name[1])


def is_local(listening: socket.socket) -> bool:
    """Whether only this machine can connect."""
    return listening.family == socket.AF_UNIX or ipaddress.ip_address(describe_address(listening)[0]).is_loopback
