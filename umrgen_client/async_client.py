"""The client for programs with asyncio: the same calls as `Client`, awaited."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
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
OnProgress = Callable[["AsyncJob"], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class AsyncJob(JobStatus):
    """A job, and what can be done with it. It does not change: `refresh` and `wait` give another."""

    client: AsyncClient = field(repr=False, compare=False)

    async def refresh(self) -> AsyncJob:
        """The job as it stands now."""
        return await self.client.status(self.id)

    async def wait(
        self, timeout_s: float | None = None, on_progress: OnProgress | None = None, *, check: bool = True
    ) -> AsyncJob:
        """Wait for the end; see AsyncClient.wait."""
        return await self.client.wait(self.id, timeout_s, on_progress, check=check)

    async def fetch(self) -> Picture:
        """The picture of a completed job. Raises ValueError for another."""
        return await self.client.fetch(self)

    async def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the picture of a completed job to a file; its path."""
        return (await self.fetch()).save(path)

    async def cancel(self) -> AsyncJob:
        """Cancel the job; as it then stands."""
        return await self.client.cancel(self.id)


class AsyncClient:
    """One service and one key. Use it in an `async with`, or close it; it belongs to one event loop.

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
        http: httpx2.AsyncClient | None = None,
    ) -> None:
        self._address = find_address(url, api_key, headers)
        self._calls = Calls(retry or Retry())
        self._http = http or httpx2.AsyncClient()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def upload(self, source: Uploadable) -> Reference:
        """Keep a picture to generate with: a path, bytes, a binary file or a Pillow image."""
        return await self._run(self._calls.upload(source))

    async def references(self) -> tuple[Reference, ...]:
        """Every upload that is kept, newest first."""
        return await self._run(self._calls.list_references())

    async def delete_reference(self, reference: Reference | str) -> None:
        """Remove an upload that no waiting job names."""
        name = reference.filename if isinstance(reference, Reference) else reference
        await self._run(self._calls.delete_reference(name))

    async def generate(
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
    ) -> AsyncJob:
        """Submit a job; when this returns it is on the service's disk.

        `references` may be pictures (uploaded first), Reference objects, their names or URLs, and completed jobs.
        The request carries a key of its own, or `idempotency_key`, so that repeating it never makes a second job.
        """
        fields = {"width": width, "height": height, "steps": steps, "seed": seed, "negative": negative, "model": model}
        body = request_body(prompt, {**fields, "callback_url": callback_url}, loras)
        return self._job(await self._run(self._calls.generate(body, references, idempotency_key)))

    async def run(
        self,
        prompt: str,
        *,
        timeout_s: float | None = None,
        on_progress: OnProgress | None = None,
        **fields: Any,
    ) -> Picture:
        """Generate, wait and fetch. `fields` are those of `generate`; raises as `wait` does."""
        job = await self.generate(prompt, **fields)
        return await (await job.wait(timeout_s, on_progress)).fetch()

    async def status(self, job_id: str) -> AsyncJob:
        """How a job stands now."""
        return self._job(await self._run(self._calls.get_status(job_id)))

    async def wait(
        self, job_id: str, timeout_s: float | None = None, on_progress: OnProgress | None = None, *, check: bool = True
    ) -> AsyncJob:
        """Wait for the end of a job; `on_progress` is called (and awaited) with it at every change and each second.

        Raises WaitTimeout after `timeout_s` seconds, JobFailed and JobCancelled unless `check` is false.
        """
        flow = self._calls.wait(job_id, timeout_s, telling=on_progress is not None, check=check)
        return self._job(await self._run(flow, on_progress))

    async def fetch(self, job: JobStatus) -> Picture:
        """The picture of a completed job, its bytes checked."""
        return await self._run(self._calls.fetch(job))

    async def events(self, job_id: str, last_event_id: int = 0) -> AsyncIterator[Event[AsyncJob]]:
        """Every change of a job until it ends, taken up again where a connection was lost."""
        feed = Feed(job_id, last_event_id, self._calls.retry)
        while not feed.ended:
            pause_s = 0.0
            try:
                async with self._http.stream(
                    **stream_arguments(self._address, feed.path, feed.last_event_id)
                ) as response:
                    if response.status_code == 200:
                        async for message in httpx2.EventSource(response):
                            event_id, status = feed.take(message.event, message.id, message.data)
                            yield Event(message.event, event_id, self._job(status))
                        pause_s = feed.rest()
                    else:
                        await response.aread()
                        pause_s = feed.answer(answer_of(response))
            except httpx2.TransportError as error:
                pause_s = feed.lose(unreachable(self._address, error))
            await asyncio.sleep(pause_s)

    async def cancel(self, job_id: str) -> AsyncJob:
        """Cancel a job; as it then stands. One that has ended stays as it is."""
        return self._job(await self._run(self._calls.cancel(job_id)))

    async def erase(self, job_id: str) -> None:
        """Remove an ended job with its prompt and picture for good."""
        await self._run(self._calls.erase(job_id))

    async def list(
        self, state: str | None = None, limit: int | None = None, cursor: str | None = None
    ) -> Page[AsyncJob]:
        """Your jobs, newest first; go on with `cursor=page.next_cursor`."""
        body = await self._run(self._calls.list_jobs(state, limit, cursor))
        return Page(tuple(self._job(one) for one in body["jobs"]), body["next_cursor"])

    async def models(self) -> tuple[Model, ...]:
        """What `model` may name and what each takes; the default first."""
        return await self._run(self._calls.list_models())

    async def me(self) -> Me[AsyncJob]:
        """Who you are to the service: limits, usage and jobs under way."""
        body = await self._run(self._calls.get("/me"))
        return Me.from_json(body, tuple(self._job(one) for one in body["current_jobs"]))

    def _job(self, status: Mapping[str, Any]) -> AsyncJob:
        return AsyncJob.from_json(status, client=self)

    async def _run(self, flow: Flow[T], on_progress: OnProgress | None = None) -> T:
        """Do what the flow asks for until it returns."""
        step = advance(flow)
        while not isinstance(step, Done):
            answer, failure = None, None
            if isinstance(step, Pause):
                await asyncio.sleep(step.seconds)
            elif isinstance(step, Request):
                try:
                    answer = await self._send(step)
                except UmrgenError as error:
                    failure = error
            elif on_progress is not None:
                told = on_progress(self._job(step.status))
                if inspect.isawaitable(told):
                    await told
            step = advance(flow, answer, failure)
        return step.value

    async def _send(self, request: Request) -> Response:
        try:
            return answer_of(await self._http.request(**arguments_of(self._address, request)))
        except (httpx2.TransportError, httpx2.InvalidURL) as error:
            raise unreachable(self._address, error) from error
