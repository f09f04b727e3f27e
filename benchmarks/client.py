"""An agent that follows its jobs through HTTP, by the leanest client at hand: what it costs is in what it measures."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

NATIVE_PX = 64
"""A side that the embedded model paints without resizing."""
WAIT = "?wait=30&until=done"
PATIENCE_S = 60.0
PROMPT = "a red circle on a white background"


@dataclass(frozen=True, slots=True)
class Job:
    """Of one job: from the POST to its answer, to the end, that without its stages in the pipeline, and its saving."""

    accepted_ms: float
    whole_ms: float
    own_ms: float
    save_ms: float


class Client:
    """One agent with one connection."""

    def __init__(self, url: str, key: str) -> None:
        parts = urlsplit(url)
        connect = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._connection = connect(parts.netloc, timeout=PATIENCE_S)
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def post(self, **body: object) -> str:
        """The status URL of a new job."""
        content = json.dumps({"prompt": "a star", **body}).encode()
        return str(self._ask("POST", "/api/v1/generate", content)["status_url"])

    def wait(self, status_url: str) -> dict[str, Any]:
        """The status of a job once it has completed."""
        status = self._ask("GET", status_url + WAIT)
        if status["state"] != "completed":
            raise SystemExit(f"the job has not completed: {status}")
        return status

    def _ask(self, method: str, path: str, content: bytes | None = None) -> dict[str, Any]:
        self._connection.request(method, path, content, self._headers)
        answer = self._connection.getresponse()
        body = answer.read()
        if answer.status >= 300:
            raise SystemExit(f"{method} {path}: {answer.status} {body[:300]!r}")
        told: dict[str, Any] = json.loads(body)
        return told

    def run_job(self, seed: int) -> Job:
        """A picture of the embedded model's own size, from the POST to its end."""
        began = time.perf_counter()
        status_url = self.post(prompt=PROMPT, width=NATIVE_PX, height=NATIVE_PX, seed=seed)
        accepted = time.perf_counter()
        stages = self.wait(status_url)["timings"]
        whole_s = time.perf_counter() - began
        own_s = whole_s - sum(stages[stage] for stage in ("encode", "denoise", "decode"))
        return Job((accepted - began) * 1000, whole_s * 1000, own_s * 1000, stages["save"] * 1000)
