"""GET /api/v1/events/{job_id}: a job's changes as server-sent events (https://html.spec.whatwg.org/#server-sent-events)."""

from __future__ import annotations

import json
from contextlib import suppress

from aiohttp import hdrs, web

from umrgen_api.access import agent_of, needs
from umrgen_api.changes import Watch
from umrgen_api.rates import Rate
from umrgen_api.routes.status import describe_job, find_job
from umrgen_api.services import Services, services_of
from umrgen_core.agents import Agent, Scope
from umrgen_core.errors import JobNotFound, Unavailable
from umrgen_core.event_store import Event
from umrgen_core.jobs import Job

COMMENT_S = 15.0
"""Without news a comment goes out this often, so that nothing on the way takes the stream for dead."""
DONE = "done"
LAST_EVENT_ID = "Last-Event-ID"


@needs(Scope.READ, Rate.READ)
async def stream_events(request: web.Request) -> web.StreamResponse:
    """Every change from now on, or behind Last-Event-ID, with the status as it stands; ends after `done`."""
    services, agent, job_id = services_of(request), agent_of(request), request.match_info["job_id"]
    with services.changes.watch(agent.id, job_id) as watch:
        await find_job(services, agent, job_id)
        last = await _find_last(services, job_id)
        job = await find_job(services, agent, job_id)
        seen = _read_last_event_id(request)
        if last.kind == DONE and last.id <= seen:
            return web.Response(status=204)
        stream = web.StreamResponse(
            headers={hdrs.CONTENT_TYPE: "text/event-stream", "X-Accel-Buffering": "no"}  # nginx would hold events back
        )
        stream.content_length = None
        await stream.prepare(request)
        # The client has gone, the job was erased, or the store is busy: who wants more comes back.
        with suppress(ConnectionError, JobNotFound, Unavailable):
            await _send_changes(stream, services, agent, job, last, seen, watch)
        return stream


async def _send_changes(
    stream: web.StreamResponse, services: Services, agent: Agent, job: Job, last: Event, seen: int, watch: Watch
) -> None:
    while True:
        if last.id > seen:
            # Changes that came faster than they were read are one event: the last of them, with its id.
            await stream.write(_render(last, await describe_job(services, job)))
            seen = last.id
        if last.kind == DONE or services.changes.stopping:
            return
        if not await watch.wait(COMMENT_S) and not services.changes.stopping:
            await stream.write(b":\n\n")
        last = await _find_last(services, job.id)
        job = await find_job(services, agent, job.id)


async def _find_last(services: Services, job_id: str) -> Event:
    """The last change, read before the row: a status may be newer than its id, never older."""
    event = await services.events.find_last(job_id)
    if event is None:
        raise JobNotFound
    return event


def _read_last_event_id(request: web.Request) -> int:
    """What the client has seen; 0 for nothing, or for what is no id of ours."""
    text = request.headers.get(LAST_EVENT_ID, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0


def _render(event: Event, status: dict[str, object]) -> bytes:
    data = json.dumps(status, ensure_ascii=False, separators=(",", ":"))
    return f"id: {event.id}\nevent: {event.kind}\ndata: {data}\n\n".encode("utf-8", "surrogatepass")
