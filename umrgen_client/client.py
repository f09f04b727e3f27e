"""The client for programs without asyncio."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx2

from umrgen_client.calls import Calls, request_body
from umrgen_client.connection import answer_of, arguments_of, find_address, stream_arguments, unreachable
from umrgen_client.errors import UmrgenError
from umrgen_client.exchange import Done, Flow, Pause, Request, Response, Retry, advance
from umrgen_client.feed import Feed
from umrgen_client.records import Event, JobStatus, Me, Model, Page, Picture, Reference
from umrgen_client.uploads import ReferenceLike, Uploadable

T = TypeVar("T")
OnProgress = Callable[["Job"], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job(JobStatus):
    """A job, and what can be done with it. It does not change: `refresh` and `wait` give another."""

    client: Client = field(repr=False, compare=False)

    def refresh(self) -> Job:
        """The job as it stands now."""
        return self.client.status(self.id)

    def wait(self, timeout_s: float | None = None, on_progress: OnProgress | None = None, *, check: bool = True) -> Job:
        """Wait for the end; see Client.wait."""
        return self.client.wait(self.id, timeout_s, on_progress, check=check)

    def fetch(self) -> Picture:
        """The picture of a completed job. Raises ValueError for another."""
        return self.client.fetch(self)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the picture of a completed job to a file; its path."""
        return self.fetch().save(path)

    def cancel(self) -> Job:
        """Cancel the job; as it then stands."""
        return self.client.cancel(self.id)


class Client:
    """One service and one key. Use it in a `with`, or close it; threads may share it.

    `url` and `api_key` default to UMRGEN_URL and UMRGEN_API_KEY. What is refused for a while (too many jobs, too many
    requests, a service that starts again) is sent again for as long as `retry` has patience. `headers` go with
    every request; `http` brings connections of your own. Every call raises UmrgenError.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        retry: Retry | None = None,
        http: httpx2.Client | None = None,
    ) -> None:
        self._address = find_address(url, api_key, headers)
        self._calls = Calls(retry or Retry())
        self._http = http or httpx2.Client()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def upload(self, source: Uploadable) -> Reference:
        """Keep a picture to generate with: a path, bytes, a binary file or a Pillow image."""
        return self._run(self._calls.upload(source))

    def references(self) -> tuple[Reference, ...]:
        """Every upload that is kept, newest first."""
        return self._run(self._calls.list_references())

    def delete_reference(self, reference: Reference | str) -> None:
        """Remove an upload that no waiting job names."""
        name = reference.filename if isinstance(reference, Reference) else reference
        self._run(self._calls.delete_reference(name))

    def generate(
        self,
        prompt: str,
        *,
        references: Sequence[ReferenceLike] = (),
        width: int | None = None,
        height: int | None = None,
        steps: int | None = None,
        seed: int | None = None,
        negative: str | None = None,
        model: str | None = None,
        loras: Mapping[str, float] | Sequence[str] = (),
        callback_url: str | None = None,
        idempotency_key: str | None = None,
    ) -> Job:
        """Submit a job; when this returns it is on the service's disk.

        `references` may be pictures (uploaded first), Reference objects, their names or URLs, and completed jobs.
        The request carries a key of its own, or `idempotency_key`, so that repeating it never makes a second job.
        """
        fields = {"width": width, "height": height, "steps": steps, "seed": seed, "negative": negative, "model": model}
        body = request_body(prompt, {**fields, "callback_url": callback_url}, loras)
        return self._job(self._run(self._calls.generate(body, references, idempotency_key)))

    def run(
        self,
        prompt: str,
        *,
        timeout_s: float | None = None,
        on_progress: OnProgress | None = None,
        **fields: Any,
    ) -> Picture:
        """Generate, wait and fetch. `fields` are those of `generate`; raises as `wait` does."""
        return self.generate(prompt, **fields).wait(timeout_s, on_progress).fetch()

    def status(self, job_id: str) -> Job:
        """How a job stands now."""
        return self._job(self._run(self._calls.get_status(job_id)))

    def wait(
        self, job_id: str, timeout_s: float | None = None, on_progress: OnProgress | None = None, *, check: bool = True
    ) -> Job:
        """Wait for the end of a job; `on_progress` is called with it at every change and each second.

        Raises WaitTimeout after `timeout_s` seconds, JobFailed and JobCancelled unless `check` is false.
        """
        flow = self._calls.wait(job_id, timeout_s, telling=on_progress is not None, check=check)
        return self._job(self._run(flow, on_progress))

    def fetch(self, job: JobStatus) -> Picture:
        """The picture of a completed job, its bytes checked."""
        return self._run(self._calls.fetch(job))

    def events(self, job_id: str, last_event_id: int = 0) -> Iterator[Event[Job]]:
        """Every change of a job until it ends, taken up again where a connection was lost."""
        feed = Feed(job_id, last_event_id, self._calls.retry)
        while not feed.ended:
            pause_s = 0.0
            try:
                with self._http.stream(**stream_arguments(self._address, feed.path, feed.last_event_id)) as response:
                    if response.status_code == 200:
                        for message in httpx2.EventSource(response):
                            event_id, status = feed.take(message.event, message.id, message.data)
                            yield Event(message.event, event_id, self._job(status))
                        pause_s = feed.rest()
                    else:
                        response.read()
                        pause_s = feed.answer(answer_of(response))
            except httpx2.TransportError as error:
                pause_s = feed.lose(unreachable(self._address, error))
            time.sleep(pause_s)

    def cancel(self, job_id: str) -> Job:
        """Cancel a job; as it then stands. One that has ended stays as it is."""
        return self._job(self._run(self._calls.cancel(job_id)))

    def erase(self, job_id: str) -> None:
        """Remove an ended job with its prompt and picture for good."""
        self._run(self._calls.erase(job_id))

    def list(self, state: str | None = None, limit: int | None = None, cursor: str | None = None) -> Page[Job]:
        """Your jobs, newest first; go on with `cursor=page.next_cursor`."""
        body = self._run(self._calls.list_jobs(state, limit, cursor))
        return Page(tuple(self._job(one) for one in body["jobs"]), body["next_cursor"])

    def models(self) -> tuple[Model, ...]:
        """What `model` may name and what each takes; the default first."""
        return self._run(self._calls.list_models())

    def me(self) -> Me[Job]:
        """Who you are to the service: limits, usage and jobs under way."""
        body = self._run(self._calls.get("/me"))
        return Me.from_json(body, tuple(self._job(one) for one in body["current_jobs"]))

    def _job(self, status: Mapping[str, Any]) -> Job:
        return Job.from_json(status, client=self)

    def _run(self, flow: Flow[T], on_progress: OnProgress | None = None) -> T:
        """Do what the flow asks for until it returns."""
        step = advance(flow)
        while not isinstance(step, Done):
            answer, failure = None, None
            if isinstance(step, Pause):
                time.sleep(step.seconds)
            elif isinstance(step, Request):
                try:
                    answer = self._send(step)
                except UmrgenError as error:
                    failure = error
            elif on_progress is not None:
                on_progress(self._job(step.status))
            step = advance(flow, answer, failure)
        return step.value

    def _send(self, request: Request) -> Response:
        try:
            return answer_of(self._http.request(**arguments_of(self._address, request)))
        except (httpx2.TransportError, httpx2.InvalidURL) as error:
            raise unreachable(self._address, error) from error
