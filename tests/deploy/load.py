"""Agents at work inside a machine while the test breaks things: what they sent, what went wrong, how long they waited.

`python -m tests.deploy.load URL KEY` runs until its input ends, then until every job that was promised has ended. It
prints an empty line for each job that ends, and at last its report as one line of JSON. Every request is a
connection of its own, so that each meets the listening socket.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from PIL import Image

SUBMITTERS = 3
CALLERS = 3
ENDED = {"completed", "failed", "cancelled"}
REQUEST = {"prompt": "a red circle", "width": 64, "height": 64, "steps": 2}
BOUNDARY = "between"
UPLOAD_PX = 2000
UPLOAD_PAUSE_S = 0.2
"""Shorter than a picture of that size is in the decoder, so that most restarts meet one there."""
LAST_JOBS_S = 60.0
WAIT_S = 2


@dataclass
class Report:
    """What happened to all requests together."""

    requests: int = 0
    refused: int = 0
    """Connections that nobody took."""
    cut: int = 0
    """Connections that ended without an answer; sent again."""
    answers: Counter[int] = field(default_factory=Counter)
    longest_s: float = 0.0
    """From connecting to the whole answer, less what the service was asked to wait."""
    uploads: int = 0
    """Pictures that were answered."""
    promised: int = 0
    """Jobs with a 202."""
    states: Counter[str] = field(default_factory=Counter)
    """Of the promised jobs, at the end."""
    retried: int = 0
    """Jobs that took more than one attempt."""


class Agents:
    """Several at once, with one key."""

    def __init__(self, url: str, key: str) -> None:
        self._url = url
        self._headers = {"Authorization": f"Bearer {key}"}
        self._stopping = asyncio.Event()
        self._jobs: list[str] = []
        self.report = Report()

    def stop(self) -> None:
        """Send no new jobs."""
        self._stopping.set()

    async def work(self) -> None:
        connector = aiohttp.TCPConnector(force_close=True, limit=0)
        timeout = aiohttp.ClientTimeout(total=120)
        async with aiohttp.ClientSession(connector=connector, headers=self._headers, timeout=timeout) as session:
            session._retry_connection = False  # it would send a GET that was cut again, and nobody would count it
            async with asyncio.TaskGroup() as tasks:
                for number in range(SUBMITTERS):
                    tasks.create_task(self._submit_forever(session, number))
                for _ in range(CALLERS):
                    tasks.create_task(self._call_forever(session))
                tasks.create_task(self._upload_forever(session))
            deadline = time.monotonic() + LAST_JOBS_S
            for job_id in self._jobs:
                job = await self._see_end(session, job_id, deadline)
                self.report.states[job["state"]] += 1
                self.report.retried += job["attempts"] > 1
        self.report.promised = len(self._jobs)

    async def _submit_forever(self, session: aiohttp.ClientSession, number: int) -> None:
        count = 0
        while not self._stopping.is_set():
            count += 1
            key = {"Idempotency-Key": f"load-{number}-{count}-{time.monotonic_ns()}"}
            status, answer = await self._ask(session, "POST", "/api/v1/generate", json=REQUEST, headers=key)
            if status == 202:
                self._jobs.append(answer["job_id"])
                await self._see_end(session, answer["job_id"], time.monotonic() + LAST_JOBS_S)
                print(flush=True)
            else:
                await asyncio.sleep(0.1)

    async def _call_forever(self, session: aiohttp.ClientSession) -> None:
        while not self._stopping.is_set():
            await self._ask(session, "GET", "/api/v1/me")
            await asyncio.sleep(0.02)

    async def _upload_forever(self, session: aiohttp.ClientSession) -> None:
        """The same picture, small to send and to keep, with other bytes behind its end: each is decoded anew."""
        picture = io.BytesIO()
        Image.new("RGB", (UPLOAD_PX, UPLOAD_PX), "red").save(picture, "PNG")
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'.encode()
        headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
        while not self._stopping.is_set():
            form = head + picture.getvalue() + os.urandom(8) + f"\r\n--{BOUNDARY}--\r\n".encode()
            await self._ask(session, "POST", "/api/v1/upload-reference", data=form, headers=headers)
            self.report.uploads += 1
            await asyncio.sleep(UPLOAD_PAUSE_S)

    async def _see_end(self, session: aiohttp.ClientSession, job_id: str, deadline: float) -> dict[str, Any]:
        while True:
            _, job = await self._ask(session, "GET", f"/api/v1/status/{job_id}?until=done&wait={WAIT_S}", wait_s=WAIT_S)
            if job.get("state") in ENDED or time.monotonic() > deadline:
                return job

    async def _ask(
        self, session: aiohttp.ClientSession, method: str, path: str, *, wait_s: float = 0, **sent: Any
    ) -> tuple[int, Any]:
        """One request, sent again until it is answered. `wait_s` is what the service was asked to wait."""
        while True:
            begun = time.monotonic()
            self.report.requests += 1
            try:
                async with session.request(method, self._url + path, **sent) as response:
                    answer = await response.json()
                self.report.answers[response.status] += 1
                return response.status, answer
            except aiohttp.ClientConnectorError:
                self.report.refused += 1
                await asyncio.sleep(0.1)
            except (aiohttp.ClientError, ConnectionError):
                self.report.cut += 1
                await asyncio.sleep(0.02)
            finally:
                self.report.longest_s = max(self.report.longest_s, time.monotonic() - begun - wait_s)


async def main(url: str, key: str) -> None:
    agents = Agents(url, key)
    reading = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    reading.add_done_callback(lambda _: agents.stop())
    await agents.work()
    print(json.dumps(vars(agents.report)))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
