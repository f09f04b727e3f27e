"""An agent that follows its jobs through HTTP."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import requests

NATIVE_PX = 64
"""A side that the embedded model paints without resizing."""
WAIT = "?wait=30&until=done"
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
        self._url = url
        self._http = requests.Session()
        self._http.headers["Authorization"] = f"Bearer {key}"

    def post(self, **body: object) -> str:
        """The status URL of a new job."""
        answer = self._http.post(f"{self._url}/api/v1/generate", json={"prompt": "a star", **body}, timeout=30)
        answer.raise_for_status()
        return str(answer.json()["status_url"])

    def wait(self, status_url: str) -> dict[str, Any]:
        """The status of a job once it has completed."""
        status: dict[str, Any] = self._http.get(self._url + status_url + WAIT, timeout=60).json()
        if status["state"] != "completed":
            raise SystemExit(f"the job has not completed: {status}")
        return status

    def run_job(self, seed: int) -> Job:
        """A picture of the embedded model's own size, from the POST to its end."""
        began = time.perf_counter()
        status_url = self.post(prompt=PROMPT, width=NATIVE_PX, height=NATIVE_PX, seed=seed)
        accepted = time.perf_counter()
        stages = self.wait(status_url)["timings"]
        whole_s = time.perf_counter() - began
        own_s = whole_s - sum(stages[stage] for stage in ("encode", "denoise", "decode"))
        return Job((accepted - began) * 1000, whole_s * 1000, own_s * 1000, stages["save"] * 1000)
