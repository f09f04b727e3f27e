"""Where the web tier listens: on systemd's socket where that runs it, else where [api] says."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

from umrgen_core.sections import ApiSettings

RUNNING = Path("/run/systemd/system")
SOCKET, SERVICE = "umrgen-api.socket", "umrgen-api.service"
SYSTEMD_S = 10.0
ANSWER_S = 5.0
ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where to ask, not where to listen
LISTENS = re.compile(r"^Listen=(?:\[?(?P<host>[\w.:*]+?)\]?:(?P<port>\d+)|(?P<path>/.*)) \(Stream\)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Address:
    """A host with its port, or the path of a UNIX socket with port 0."""

    host: str
    port: int

    def __str__(self) -> str:
        if not self.port:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_local(self) -> bool:
        """Whether only this machine can connect."""
        return self.host.startswith("/") or ApiSettings(host=self.host).listens_on_loopback()

    def ask(self, path: str) -> tuple[int, object]:
        """Status and JSON of an answer; None in the place of what is no JSON. Raises OSError, HTTPException."""
        connection = self._connect()
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            content = response.read(1 << 16)
            try:
                return response.status, json.loads(content)
            except ValueError:
                return response.status, None
        finally:
            connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        if self.port:
            return http.client.HTTPConnection(ANY.get(self.host, self.host), self.port, timeout=ANSWER_S)
        connection = http.client.HTTPConnection("localhost", timeout=ANSWER_S)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(ANSWER_S)
        try:
            connection.sock.connect(self.host)
        except OSError:
            connection.close()
            raise
        return connection


def find_addresses(config: Path, systemctl: str | None = None, running: Path = RUNNING) -> tuple[Address, ...]:
    """Where systemd listens for the web tier of this configuration; empty where it does not."""
    systemctl = systemctl or shutil.which("systemctl")
    if systemctl is None or not running.is_dir():
        return ()
    command = [systemctl, "show", "--property=ActiveState,Listen,ExecStart", SOCKET, SERVICE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SYSTEMD_S, check=False)
    of_socket, _, of_service = done.stdout.partition("\n\n")
    if "ActiveState=active" not in of_socket.splitlines() or f"--config {config.resolve()} " not in of_service:
        return ()
    return tuple(
        Address(found["path"], 0) if found["path"] else Address(found["host"], int(found["port"]))
        for found in LISTENS.finditer(of_socket)
    )
