"""Every call of the API as a flow."""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from umrgen_client.errors import BadAnswer, JobCancelled, JobFailed, Unreachable, WaitTimeout
from umrgen_client.exchange import Flow, Pause, Request, Retry, Tell, ask, read_json
from umrgen_client.records import JobStatus, Json, Model, Picture, Reference
from umrgen_client.uploads import ReferenceLike, Uploadable, find_name, read_upload

LONG_WAIT_S = 30.0
PROGRESS_S = 1.0
"""How often somebody who wants to see progress is told of it while the job runs …"""
PLACE_S = 5.0
"""… and while it is queued: many may wait, and each look counts as a read."""
HASTY_S = 0.05
"""An answer that says nothing new before this time comes from a server that is stopping."""
HASTY_PAUSE_S = 0.2
API = "/api/v1"


@dataclass(frozen=True, slots=True)
class Calls:
    """The calls, with one way to repeat them. `clock` is in seconds and never goes back."""

    retry: Retry
    clock: Callable[[], float] = time.monotonic

    def get(self, path: str, params: Mapping[str, str] | None = None) -> Flow[dict[str, Any]]:
        """The object at a path."""
        return read_json((yield from ask(Request("GET", API + path, params or {}), self.retry)))

    def upload(self, source: Uploadable) -> Flow[Reference]:
        """Keep a picture. The same bytes again are the same reference, so that it may be repeated."""
        request = Request("POST", f"{API}/upload-reference", file=read_upload(source))
        return Reference.from_json(read_json((yield from ask(request, self.retry))))

    def list_references(self) -> Flow[tuple[Reference, ...]]:
        """Every reference that is kept."""
        body = yield from self.get("/references")
        return tuple(Reference.from_json(one) for one in body["references"])

    def delete_reference(self, filename: str) -> Flow[None]:
        """Remove one."""
        yield from ask(Request("DELETE", f"{API}/references/{quote(filename, safe='')}", repeatable=False), self.retry)

    def generate(
        self, body: Mapping[str, Any], references: Sequence[ReferenceLike], idempotency_key: str | None
    ) -> Flow[dict[str, Any]]:
        """Upload what must be, submit, and ask how the job stands."""
        names: list[str] = []
        for reference in references:
            name = find_name(reference)
            names.append((yield from self.upload(reference)).filename if name is None else name)  # type: ignore[arg-type]
        request = Request(
            "POST",
            f"{API}/generate",
            json={**body, "reference_images": names} if names else body,
            headers={"Idempotency-Key": idempotency_key or uuid.uuid4().hex},
        )
        accepted = read_json((yield from ask(request, self.retry)))
        try:
            return (yield from self.get_status(accepted["job_id"]))
        except Unreachable as error:
            error.job_id = accepted["job_id"]
            raise

    def get_status(self, job_id: str, wait_s: float = 0.0, *, until_done: bool = False) -> Flow[dict[str, Any]]:
        """How a job stands: now, after its next change, or at its end."""
        params = {"wait": f"{wait_s:.3f}"} if wait_s > 0 else {}
        if params and until_done:
            params["until"] = "done"
        request = Request("GET", f"{API}/status/{quote(job_id, safe='')}", params, wait_s=wait_s)
        return read_json((yield from ask(request, self.retry)))

    def wait(self, job_id: str, timeout_s: float | None, *, telling: bool, check: bool) -> Flow[dict[str, Any]]:
        """Wait for the end. Raises WaitTimeout, and with `check` JobFailed or JobCancelled."""
        deadline = None if timeout_s is None else self.clock() + timeout_s
        seen: str | None = None
        while True:
            before = self.clock()
            wait_s = (PROGRESS_S if seen == "running" else PLACE_S) if telling else LONG_WAIT_S
            left_s = wait_s if deadline is None else max(deadline - before, 0.0)
            # The first answer comes at once where progress is shown: the job may have waited for long already.
            step_s = 0.0 if telling and seen is None else min(wait_s, left_s)
            status = yield from self.get_status(job_id, step_s, until_done=not telling)
            if telling:
                yield Tell(status)
            job = JobStatus.from_json(status)
            if job.ended:
                return check_end(status) if check else status
            if left_s <= 0:
                raise WaitTimeout(job)
            if step_s > HASTY_S and job.state == seen and self.clock() - before < HASTY_S:
                yield Pause(HASTY_PAUSE_S)
            seen = job.state

    def fetch(self, job: JobStatus) -> Flow[Picture]:
        """The finished PNG, its bytes compared with their sha256. Raises ValueError for a job without one."""
        if job.image_url is None:
            raise ValueError(f"job {job.id} has no picture: it is {job.state}")
        path = "/" + job.image_url.split("://", 1)[-1].split("/", 1)[-1]
        response = yield from ask(Request("GET", path), self.retry)
        if hashlib.sha256(response.body).hexdigest() != job.sha256:
            raise BadAnswer(f"The picture of job {job.id} did not arrive whole; fetch it again.")
        return Picture(response.body, job)

    def list_jobs(self, state: str | None, limit: int | None, cursor: str | None) -> Flow[dict[str, Any]]:
        """A page of jobs."""
        asked = {"state": state, "limit": None if limit is None else str(limit), "cursor": cursor}
        return (yield from self.get("/jobs", {name: value for name, value in asked.items() if value is not None}))

    def list_models(self) -> Flow[tuple[Model, ...]]:
        """What is served."""
        body = yield from self.get("/models")
        return tuple(Model.from_json(one) for one in body["models"])

    def cancel(self, job_id: str) -> Flow[dict[str, Any]]:
        """Cancel; the status as it then stands."""
        return read_json((yield from ask(Request("DELETE", f"{API}/jobs/{quote(job_id, safe='')}"), self.retry)))

    def erase(self, job_id: str) -> Flow[None]:
        """Remove an ended job for good."""
        path = f"{API}/jobs/{quote(job_id, safe='')}"
        yield from ask(Request("DELETE", path, {"erase": "true"}, repeatable=False), self.retry)


def check_end(status: dict[str, Any]) -> dict[str, Any]:
    """The status of a completed job. Raises JobFailed or JobCancelled."""
    job = JobStatus.from_json(status)
    if job.state == "failed":
        raise JobFailed(job)
    if job.state == "cancelled":
        raise JobCancelled(job)
    return status


def request_body(prompt: str, fields: Json, loras: Mapping[str, float] | Sequence[str]) -> dict[str, Any]:
    """The body of a generate: what was left out is left to the service."""
    body: dict[str, Any] = {"prompt": prompt, **{name: value for name, value in fields.items() if value is not None}}
    if isinstance(loras, Mapping):
        chosen = [{"name": name, "strength": strength} for name, strength in loras.items()]
    else:
        chosen = [{"name": name} for name in loras]
    return {**body, "loras": chosen} if chosen else body
