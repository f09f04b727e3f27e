"""A hub on a port of this machine: lists a repository and serves its files, whole or from a byte on."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """What it holds, what it was asked for, and how it misbehaves."""

    repos: dict[str, dict[str, bytes]]
    listed_bytes: dict[str, int] = field(default_factory=dict)
    """Sizes that the listing gives in place of the true ones."""
    broken: set[str] = field(default_factory=set)
    """Files whose next download breaks off in the middle."""
    stuck: set[str] = field(default_factory=set)
    """Files whose downloads stop in the middle and stay open."""
    gated: set[str] = field(default_factory=set)
    gets: list[tuple[str, str]] = field(default_factory=list)
    """File and range of every download."""
    waiting: threading.Event = field(default_factory=threading.Event)
    """Set when a download is stuck."""
    released: threading.Event = field(default_factory=threading.Event)
    url: str = ""


@contextmanager
def open_hub(repos: dict[str, dict[str, bytes]]) -> Iterator[Hub]:
    hub = Hub(repos)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        hub.released.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_HEAD(self) -> None:
        self._serve(body=False)

    def do_GET(self) -> None:
        if self.path.startswith("/api/models/"):
            self._list()
        else:
            self._serve(body=True)

    def log_message(self, *_: Any) -> None:
        pass

    def _list(self) -> None:
        asked = self.path.removeprefix("/api/models/")
        if asked.endswith("/revision/main"):
            return self._answer(200, json.dumps({"id": asked, "sha": COMMIT, "siblings": []}).encode(), {})
        repo, _, rest = asked.partition("/tree/")
        if repo not in self.hub.repos or not rest.startswith((COMMIT, "main")):
            return self._refuse(404, "RepoNotFound")
        entries = [
            {
                "type": "file",
                "path": path,
                "oid": _digest(content),
                "size": self.hub.listed_bytes.get(path, len(content)),
            }
            for path, content in self.hub.repos[repo].items()
        ]
        return self._answer(200, json.dumps(entries).encode(), {"Content-Type": "application/json"})

    def _serve(self, *, body: bool) -> None:
        repo, _, rest = self.path.removeprefix("/").partition("/resolve/")
        path = rest.partition("/")[2]
        content = self.hub.repos.get(repo, {}).get(path)
        if repo in self.hub.gated:
            return self._refuse(403, "GatedRepo")
        if content is None:
            return self._refuse(404, "EntryNotFound")
        headers = {"ETag": f'"{_digest(content)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        asked = self.headers.get("Range", "")
        if not body:
            return self._answer(200, content, headers, send=False)
        self.hub.gets.append((path, asked))
        if asked:
            first = int(asked.removeprefix("bytes=").partition("-")[0])
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
            return self._answer(206, content[first:], headers)
        if path in self.hub.broken or path in self.hub.stuck:
            return self._break_off(path, content, headers)
        return self._answer(200, content, headers)

    def _break_off(self, path: str, content: bytes, headers: dict[str, str]) -> None:
        self._answer(200, content, headers, send=False)
        self.wfile.write(content[: len(content) // 2])
        self.wfile.flush()
        if path in self.hub.stuck:
            self.hub.waiting.set()
            self.hub.released.wait(30)
        self.hub.broken.discard(path)
        self.close_connection = True

    def _refuse(self, status: int, code: str) -> None:
        self._answer(status, b"{}", {"X-Error-Code": code, "X-Error-Message": code})

    def _answer(self, status: int, content: bytes, headers: dict[str, str], *, send: bool = True) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if send:
            self.wfile.write(content)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
