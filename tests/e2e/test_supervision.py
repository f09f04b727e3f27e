"""Both processes as systemd runs them: what they tell it, and sockets that outlive them. A real one: tests/deploy."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.e2e.conftest import Stack, wait_until
from umrgen_cli.processes import Daemon, running
from umrgen_core.errors import CANNOT_START

WAIT_S = 60.0
WATCHDOG_S = 4.0

# As systemd does it: the sockets from descriptor 3 on, and the process that they are meant for.
PASS_ON = """
import os, sys
for number, fd in enumerate(map(int, sys.argv[1].split(",")), 3):
    os.dup2(fd, number)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(number - 2))
os.execv(sys.executable, [sys.executable, "-m", *sys.argv[2:]])
"""


class Hearing:
    """The other end of what a process tells systemd."""

    def __init__(self, folder: Path) -> None:
        self.address = folder / "notify"
        self.lines: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.address))
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def environment(self) -> dict[str, str]:
        return {"NOTIFY_SOCKET": str(self.address), "WATCHDOG_USEC": str(round(WATCHDOG_S * 1e6))}

    def _listen(self) -> None:
        while True:
            self.lines += self._socket.recv(4096).decode().splitlines()

    def wait_for(self, *parts: str) -> str:
        """The first line with all the parts."""
        wait_until(lambda: any(all(part in line for part in parts) for line in self.lines), WAIT_S)
        return next(line for line in self.lines if all(part in line for part in parts))


@pytest.fixture
def hearing(tmp_path: Path) -> Hearing:
    return Hearing(tmp_path)


def start_web(stack: Stack, hearing: Hearing, *sockets: socket.socket) -> Daemon:
    """A web tier on sockets that are open already."""
    log = stack.data_dir / f"web-{time.monotonic_ns()}.out"
    log.parent.mkdir(parents=True, exist_ok=True)
    numbers = [one.fileno() for one in sockets]
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", PASS_ON, ",".join(map(str, numbers)), "umrgen_api", "--config", "config.toml"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env={**os.environ, **stack.environment, **hearing.environment},
            pass_fds=numbers,
        )
    return Daemon("umrgen_api", process, log)


class Client:
    """Asks without a pause until it is stopped: each time anew, or over one connection for as long as that lasts."""

    def __init__(self, port: int, *, keep_alive: bool) -> None:
        self.answered = 0
        self.connected = 0
        self.errors: list[str] = []
        self._port, self._keep_alive = port, keep_alive
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        connection: http.client.HTTPConnection | None = None
        while not self._stop.is_set():
            if connection is None:
                connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=WAIT_S)
                self.connected += 1
            try:
                connection.request("GET", "/healthz")
                answer = connection.getresponse()
                answer.read()
                if answer.status != 200:
                    self.errors.append(str(answer.status))
            except (OSError, http.client.HTTPException) as error:
                self.errors.append(repr(error))
                connection = None
                continue
            self.answered += 1
            if answer.will_close or not self._keep_alive:
                connection.close()
                connection = None
        if connection is not None:
            connection.close()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(WAIT_S)

    @contextmanager
    def asking(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self.stop()


def test_a_web_tier_that_is_restarted_on_a_socket_of_systemds_refuses_and_drops_nobody(
    make_stack: Callable[..., Stack], hearing: Hearing, tmp_path: Path
) -> None:
    stack, path = make_stack(), tmp_path / "web.sock"
    with socket.create_server(("127.0.0.1", 0), backlog=512) as inet, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(path))
        unix.listen()
        port = inet.getsockname()[1]
        anew = [Client(port, keep_alive=False) for _ in range(3)]
        kept = Client(port, keep_alive=True)
        with running(first := start_web(stack, hearing, inet, unix)):
            hearing.wait_for("READY=1")
            status = hearing.wait_for("STATUS=serving on", "queue")
            assert status == f"STATUS=serving on 127.0.0.1:{port}, {path}, 0 running, queue empty"
            hearing.wait_for("WATCHDOG=1")
            assert ask_over_unix(path) == 200
            with ExitStack() as rest:
                for client in (*anew, kept):
                    rest.enter_context(client.asking())
                wait_until(lambda: all(client.answered > 20 for client in (*anew, kept)), WAIT_S)
                assert first.stop(signal.SIGTERM) == 0
                assert "STOPPING=1" in hearing.lines
                before = {client: client.answered for client in (*anew, kept)}
                rest.enter_context(running(start_web(stack, hearing, inet, unix)))
                wait_until(lambda: all(client.answered > count + 20 for client, count in before.items()), WAIT_S)
                for client in (*anew, kept):
                    client.stop()
    assert [client.errors for client in (*anew, kept)] == [[]] * 4
    assert kept.connected == 2  # it was told in time that the connection ends


def ask_over_unix(path: Path) -> int:
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(path))
    connection.request("GET", "/healthz")
    return connection.getresponse().status


def test_the_published_key_is_refused_where_a_socket_of_systemds_can_be_reached_from_elsewhere(
    make_stack: Callable[..., Stack], hearing: Hearing
) -> None:
    with (
        socket.create_server(("0.0.0.0", 0)) as everywhere,
        running(web := start_web(make_stack(), hearing, everywhere)),
    ):
        assert web.process.wait(WAIT_S) == CANNOT_START
    assert "socket of systemd's, is not loopback" in web.log.read_text()
    assert "READY=1" not in hearing.lines


def test_the_daemon_is_ready_once_its_model_is_loaded_and_says_what_it_does(
    make_stack: Callable[..., Stack], hearing: Hearing
) -> None:
    stack = make_stack()
    stack.environment |= hearing.environment
    daemon = stack.start_infer()
    hearing.wait_for("STATUS=loading tiny-klein, queue empty")
    assert "READY=1" not in hearing.lines
    hearing.wait_for("READY=1")
    assert any(event["event"] == "model_ready" for event in daemon.events())
    hearing.wait_for("STATUS=idle, queue empty")
    beats = hearing.lines.count("WATCHDOG=1")
    wait_until(lambda: hearing.lines.count("WATCHDOG=1") > beats, WATCHDOG_S)  # while it idles
    assert daemon.stop(signal.SIGTERM) == 0
    assert "STOPPING=1" in hearing.lines
