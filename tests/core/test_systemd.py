"""What is said to systemd, heard at a real socket; and what is taken from it."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from umrgen_core.errors import ConfigError
from umrgen_core.systemd import BEATS, Notifier, find_notifier, is_local, take_sockets

Hear = Callable[[], list[str]]


def bind(address: str) -> socket.socket:
    heard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    heard.bind("\0" + address[1:] if address.startswith("@") else address)
    heard.settimeout(0)
    return heard


def drain(heard: socket.socket) -> list[str]:
    """What has been said so far: a datagram is there once it has been sent."""
    said = []
    while True:
        try:
            said.append(heard.recv(4096).decode())
        except BlockingIOError:
            return said


@pytest.fixture(params=["path", "abstract"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"@umrgen-test-{os.getpid()}-{tmp_path.name}" if request.param == "abstract" else str(tmp_path / "notify")


def test_what_is_said_arrives_at_a_path_and_at_an_abstract_socket(address: str) -> None:
    with bind(address) as heard:
        notifier = find_notifier({"NOTIFY_SOCKET": address})
        notifier.ready()
        notifier.status("running\next_1, step 3/4")
        notifier.status("running ext_1, step 3/4")
        notifier.stopping()
        assert drain(heard) == ["READY=1", "STATUS=running ext_1, step 3/4", "STOPPING=1"]


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1"}])
def test_without_systemd_nothing_is_said_and_nothing_is_found(environment: dict[str, str]) -> None:
    notifier = find_notifier({**environment, "WATCHDOG_USEC": "1000000"})
    assert (notifier.is_heard, notifier.watchdog_s) == (False, 0.0)
    notifier.ready()
    notifier.beat()
    notifier.status("idle")
    with notifier.patience(5):
        notifier.stopping()
    assert take_sockets(environment) == []


def test_a_systemd_that_is_gone_or_deaf_hinders_nobody(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    Notifier(address).ready()
    with bind(address):
        notifier = Notifier(address)
        talking = threading.Thread(target=lambda: [notifier.status(f"{n} {'x' * 3000}") for n in range(12)])
        talking.start()
        talking.join(30)
        assert not talking.is_alive()


def test_of_many_signs_of_life_systemd_hears_few_but_enough(tmp_path: Path) -> None:
    now_s = [0.0]
    with bind(str(tmp_path / "notify")) as heard:
        notifier = Notifier(str(tmp_path / "notify"), 10.0, lambda: now_s[0])
        for step in range(1000):  # one each 10 ms
            now_s[0] = step / 100
            notifier.beat()
        assert drain(heard) == ["WATCHDOG=1"] * BEATS


def test_the_watchdog_is_anothers_or_nobodys(tmp_path: Path) -> None:
    address = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
    us = {"WATCHDOG_USEC": "30000000"}
    assert find_notifier({**address, **us}).watchdog_s == 30
    assert find_notifier({**address, **us, "WATCHDOG_PID": str(os.getpid())}).watchdog_s == 30
    assert find_notifier({**address, **us, "WATCHDOG_PID": "1"}).watchdog_s == 0
    assert find_notifier({**address, "WATCHDOG_USEC": "soon"}).watchdog_s == 0
    with bind(str(tmp_path / "notify")) as heard:
        find_notifier(address).beat()
        assert drain(heard) == []


def test_patience_lasts_for_what_is_inside_and_no_longer(tmp_path: Path) -> None:
    with bind(str(tmp_path / "notify")) as heard:
        notifier = Notifier(str(tmp_path / "notify"), 10.0)
        with notifier.patience(1800):
            assert drain(heard) == []  # the start has a bound of its own
        notifier.ready()
        with suppress(RuntimeError), notifier.patience(1800):
            assert drain(heard) == ["READY=1", "WATCHDOG_USEC=1800000000\nWATCHDOG=1"]
            raise RuntimeError("as a model that cannot be loaded")
        assert drain(heard) == ["WATCHDOG_USEC=10000000\nWATCHDOG=1"]
        with notifier.patience(3):
            assert drain(heard) == ["WATCHDOG_USEC=10000000\nWATCHDOG=1"]  # never less than else


@pytest.fixture
def open_sockets(tmp_path: Path) -> Iterator[Callable[..., int]]:
    """`open_sockets(a, b)` puts copies of sockets on descriptors that follow each other; the first of them."""
    first = 200
    opened: list[int] = []

    def put(*sockets: socket.socket) -> int:
        for number, one in enumerate(sockets, first):
            os.dup2(one.fileno(), number)
            opened.append(number)
        return first

    yield put
    for number in opened:
        with suppress(OSError):  # whoever refused it may have closed it
            os.close(number)


def named(count: int, pid: int | None = None) -> dict[str, str]:
    return {"LISTEN_PID": str(pid or os.getpid()), "LISTEN_FDS": str(count)}


def test_every_socket_that_systemd_passes_is_taken_and_none_of_anothers(
    open_sockets: Callable[..., int], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.socket(socket.AF_UNIX) as two:
        two.bind(str(tmp_path / "web.sock"))
        two.listen()
        first = open_sockets(one, two)
        assert take_sockets(named(2, os.getppid()), first) == []
        taken = take_sockets(named(2), first)
        assert [sock.getsockname() for sock in taken] == [one.getsockname(), str(tmp_path / "web.sock")]
        assert not any(sock.get_inheritable() for sock in taken)
        for sock in taken:
            sock.detach()


def test_what_no_server_can_serve_is_refused_by_its_descriptor(open_sockets: Callable[..., int]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams, socket.socket() as silent:
        first = open_sockets(datagrams, silent)
        with pytest.raises(ConfigError, match="descriptor 200 of LISTEN_FDS: no listening stream"):
            take_sockets(named(1), first)
        with pytest.raises(ConfigError, match="descriptor 201 of LISTEN_FDS: no listening stream"):
            take_sockets(named(1), first + 1)
        with pytest.raises(ConfigError, match="descriptor 250 of LISTEN_FDS: Bad file descriptor"):
            take_sockets(named(1), 250)


def test_a_socket_of_another_family_is_refused_and_not_taken_for_an_address(open_sockets: Callable[..., int]) -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) as kernel:
        first = open_sockets(kernel)
        with pytest.raises(ConfigError, match="descriptor 200 of LISTEN_FDS: AF_NETLINK is not served"):
            take_sockets(named(1), first)


@pytest.mark.parametrize(
    ("host", "family", "local"),
    [
        ("127.0.0.1", socket.AF_INET, True),
        ("127.8.8.8", socket.AF_INET, True),
        ("0.0.0.0", socket.AF_INET, False),
        ("::1", socket.AF_INET6, True),
        ("::", socket.AF_INET6, False),
    ],
)
def test_whether_only_this_machine_can_connect_is_read_from_the_socket(
    host: str, family: socket.AddressFamily, local: bool
) -> None:
    with socket.create_server((host, 0), family=family) as listening:
        assert is_local(listening) is local
