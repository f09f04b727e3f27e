"""The jobs of one order: put into the queue as the agent's limit allows, and waited for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial

from aiohttp import web

from umrgen_api.access import agent_of
from umrgen_api.changes import Watch
from umrgen_api.openai.errors import SERVER, OpenAiError, explain_end
from umrgen_api.openai.order import Order
from umrgen_api.render import status_url
from umrgen_api.routes.status import find_job
from umrgen_api.services import services_of
from umrgen_api.submission import check_body, submit_checked
from umrgen_core.errors import ConcurrentLimit, QueueFull
from umrgen_core.jobs import Job, Output
from umrgen_core.requests import AcceptedRequest

MAX_WAIT_S = 3600.0
"""Longer than any client waits."""
LOOK_AGAIN_S = 10.0
"""How often it is looked whether the client is still there."""
FULL_S = 2.0
"""How often a job that found no room is tried again, when the job in its way has not ended."""

KeepImages = Callable[[], Awaitable[list[str]]]


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the order's picture number `place` stands."""

    place: int
    job: Job


class Pictures:
    """An order on its way. Once a job is in the queue, nothing that becomes of the request stops it."""

    def __init__(self, request: web.Request, order: Order, key: str | None, watch: Watch) -> None:
        self._request = request
        self._services = services_of(request)
        self._agent = agent_of(request)
        self._order = order
        self._key = key
        self._watch = watch
        self._accepted: AcceptedRequest | None = None
        self._job_ids: list[str] = []
        self._deadline = asyncio.get_running_loop().time() + MAX_WAIT_S

    async def begin(self, images: int, keep_images: KeepImages) -> None:
        """Put into the queue what there is room for, images first. Raises where there is none for a single job."""
        if not await self._are_all_replays():
            checked = self._check(["image"] * images)  # whatever else is wrong is told before anything is decoded
            self._accepted = replace(checked, reference_names=tuple(await keep_images()))
        full = await self._submit_what_fits()
        if full is not None and not self._job_ids:
            raise full

    async def follow(self) -> AsyncIterator[Progress]:
        """Each picture in order, again and again until its job has completed.

        Raises OpenAiError when a job ends without a picture, the wait is over or the server stops, and
        ConnectionResetError when the client has gone.
        """
        for place in range(self._order.request.n):
            full = await self._submit_what_fits() if place else None  # at first `begin` has just tried
            while full is not None and place >= len(self._job_ids):  # the agent's other jobs came first
                await self._wait_for_room(str(full.extra.get("job_id", "")))
                full = await self._submit_what_fits()
            async for job in self._follow_job(self._job_ids[place]):
                yield Progress(place, job)

    async def _follow_job(self, job_id: str) -> AsyncIterator[Job]:
        self._watch.turn_to(job_id)
        while True:
            job = await find_job(self._services, self._agent, job_id)
            if job.state.ended and job.output is None:
                raise explain_end(job, named=self._key is not None)
            yield job
            if job.state.ended:
                return
            await self._pause(job_id, LOOK_AGAIN_S)

    async def _submit_what_fits(self) -> ConcurrentLimit | QueueFull | None:
        """Submit the jobs that are still to be, in order; what stopped it, if anything did."""
        while (place := len(self._job_ids)) < self._order.request.n:
            submission = None if self._key is None else self._order.submission_of(place, self._key)
            accept = partial(self._accept, place)
            try:
                replay = await submit_checked(self._request, self._agent, accept, submission)
            except (ConcurrentLimit, QueueFull) as full:
                return full
            self._job_ids.append(str(replay.answer["job_id"]))
        return None

    def _accept(self, place: int) -> AcceptedRequest:
        """The order's generate number `place`; the body is checked once, however often it is tried."""
        if self._accepted is None:
            self._accepted = self._check([])
        return self._order.turn_to(place, self._accepted)

    def _check(self, references: list[str]) -> AcceptedRequest:
        return check_body(self._request, self._agent, {**self._order.generate, "reference_images": references})

    async def _wait_for_room(self, job_id: str) -> None:
        """Until another try may succeed: the job in the way has ended, or FULL_S are over. Progress makes no room."""
        clock = asyncio.get_running_loop().time
        until = clock() + FULL_S
        self._watch.turn_to(job_id)
        while (left := until - clock()) > 0:
            if job_id and await self._has_ended(job_id):
                return
            await self._pause(job_id, left)

    async def _has_ended(self, job_id: str) -> bool:
        job = await self._services.jobs.find(self._agent, job_id)
        return job is None or job.state.ended

    async def _are_all_replays(self) -> bool:
        """Whether this very order was accepted before: then it stands, whatever has become of its images."""
        if self._key is None:
            return False
        submissions = [self._order.submission_of(place, self._key) for place in range(self._order.request.n)]
        return all([await self._services.jobs.find_replay(self._agent, one) is not None for one in submissions])

    async def _pause(self, job_id: str, seconds: float) -> None:
        """Wait for a change of a job, if there is anybody left to wait for it."""
        if self._request.transport is None:
            raise ConnectionResetError("the client has gone")
        if self._services.changes.stopping:
            raise self._give_up(503, "unavailable", "The service is stopping.")
        if asyncio.get_running_loop().time() >= self._deadline:
            raise self._give_up(504, "timeout", f"The pictures were not done within {MAX_WAIT_S:g} s.")
        if self._watch.job_id != job_id:
            self._watch.turn_to(job_id)
        await self._watch.wait(seconds)

    def _give_up(self, status: int, code: str, sentence: str) -> OpenAiError:
        """A retry under an Idempotency-Key waits on; without one it would paint everything twice."""
        where = ", ".join(status_url(job_id) for job_id in self._job_ids)
        message = f"{sentence} What was accepted goes on: {where}."
        return OpenAiError(status, code, message, kind=SERVER, should_retry=self._key is not None)


def output_of(job: Job) -> Output:
    """The picture of a completed job."""
    if job.output is None:
        raise ValueError(f"{job.id} has no picture")
    return job.output
