"""Hints between the processes: a datagram after a commit. The slow poll stays the truth.

One socket for each process in the run directory, `<kind>-<id>.sock`. A socket path holds only 107
bytes, so both ends go through a directory descriptor. Nothing here ever blocks or raises for want of
a listener; a socket that refuses belongs to a dead process and is unlinked.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from pathlib import Path


class Listener(StrEnum):
    """Who can be woken."""

    API = "api"
    """A web tier: some job has changed."""
    INFER = "infer"
    """An inference daemon: some job is queued, or a cancel was asked for."""


class Hints:
    """Sends hints. Nobody can send any to it: enough for a command, which does not stay."""

    def __init__(self, data_dir: Path) -> None:
        folder = data_dir / "run"
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)

    def send(self, kind: Listener, message: str) -> None:
        """Hint every process of `kind`."""
        try:
            names = os.listdir(self._folder_fd)
        except OSError:  # no descriptor or memory left: a hint is not worth an error
            return
        for name in names:
            if name.startswith(f"{kind}-") and name.endswith(".sock"):
                self._send_one(name, message.encode())

    def list_dead(self) -> list[str]:
        """Names of sockets in the run directory whose process has gone."""
        try:
            names = sorted(os.listdir(self._folder_fd))
        except OSError:
            return []
        return [name for name in names if name.endswith(".sock") and self._is_dead(name)]

    def _is_dead(self, name: str) -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
            return probe.connect_ex(self._address(name)) == errno.ECONNREFUSED

    def close(self) -> None:
        """Give the descriptors back."""
        self._socket.close()
        os.close(self._folder_fd)

    def _address(self, name: str) -> str:
        return f"/proc/self/fd/{self._folder_fd}/{name}"

    def _send_one(self, name: str, payload: bytes) -> None:
        try:
            self._socket.sendto(payload, self._address(name))
        except OSError as error:
            if error.errno == errno.ECONNREFUSED:
                with suppress(OSError):
                    os.unlink(name, dir_fd=self._folder_fd)


class Wakeup(Hints):
    """The end of the hints that belongs to one process: it sends and is sent to."""

    def __init__(self, data_dir: Path, kind: Listener, process_id: str) -> None:
        super().__init__(data_dir)
        self._name = f"{kind}-{process_id}.sock"
        self._socket.bind(self._address(self._name))

    def listen(self, on_message: Callable[[str], None]) -> None:
        """Call `on_message(text)` in the event loop for each hint."""
        asyncio.get_running_loop().add_reader(self._socket, self._receive, on_message)

    def close(self) -> None:
        """Stop listening and remove the socket."""
        with suppress(RuntimeError):
            asyncio.get_running_loop().remove_reader(self._socket)
        with suppress(FileNotFoundError):
            os.unlink(self._name, dir_fd=self._folder_fd)
        super().close()

    def _receive(self, on_message: Callable[[str], None]) -> None:
        while True:
            try:
                payload = self._socket.recv(4096)
            except BlockingIOError:
                return
            on_message(payload.decode("utf-8", "replace"))
