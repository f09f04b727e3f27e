"""POST /api/v1/generate, GET /api/v1/jobs and DELETE /api/v1/jobs/{job_id}."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from typing import Any

from aiohttp import hdrs, web

from umrgen_api.access import agent_of, needs
from umrgen_api.body import read_json
from umrgen_api.errors import json_response
from umrgen_api.middleware import REQUEST_ID
from umrgen_api.rates import Rate
from umrgen_api.render import render_accepted
from umrgen_api.routes.status import describe_job
from umrgen_api.services import services_of
from umrgen_core.agents import Scope
from umrgen_core.errors import FieldProblem, InvalidRequest
from umrgen_core.files import Shelf
from umrgen_core.job_store import Replay, Submission
from umrgen_core.jobs import JobState
from umrgen_core.names import new_job_id
from umrgen_core.requests import accept_request
from umrgen_core.wakeup import Listener

IDEMPOTENCY_KEY = "Idempotency-Key"
DEFAULT_PAGE = 20
MAX_PAGE = 100
_VISIBLE = re.compile(r"[\x21-\x7e]{1,128}")


@needs(Scope.GENERATE, Rate.WRITE)
async def generate(request: web.Request) -> web.Response:
    """Accept a job. When this is answered the job is on disk."""
    services, agent = services_of(request), agent_of(request)
    submission = _submission_of(request, body := await read_json(request))
    if submission is not None and (replay := await services.jobs.find_replay(agent, submission)) is not None:
        return _accepted(replay.answer, replayed=True)
    accepted = accept_request(body, services.settings.served_models, services.loras)
    services.prompts.check("prompt", accepted.prompt, agent.safety_off)
    services.prompts.check("negative", accepted.negative, agent.safety_off)
    await asyncio.to_thread(services.disk.require_room)
    job_id, request_id = new_job_id(), request[REQUEST_ID]
    if submission is None:
        replay = Replay(render_accepted(*await services.jobs.enqueue(agent, job_id, accepted, request_id)), first=True)
    else:
        replay = await services.jobs.enqueue_once(agent, job_id, accepted, request_id, submission)
    services.wakeup.send(Listener.INFER, "queued")
    return _accepted(replay.answer, replayed=not replay.first)


def _submission_of(request: web.Request, body: dict[str, Any]) -> Submission | None:
    """The request under its Idempotency-Key, or None when it has none. Raises InvalidRequest."""
    keys = request.headers.getall(IDEMPOTENCY_KEY, [])
    if not keys:
        return None
    if len(keys) > 1 or not _VISIBLE.fullmatch(keys[0]):
        raise InvalidRequest([FieldProblem(IDEMPOTENCY_KEY, "must be one value of 1 to 128 visible ASCII characters")])
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    return Submission(keys[0], hashlib.sha256(canonical).hexdigest(), render_accepted)


def _accepted(answer: dict[str, object], *, replayed: bool) -> web.Response:
    headers = {hdrs.LOCATION: str(answer["status_url"])} | ({"Idempotent-Replayed": "true"} if replayed else {})
    return json_response(answer, 202, headers)


@needs(Scope.GENERATE, Rate.READ)
async def cancel_job(request: web.Request) -> web.Response:
    """Cancel a job, or erase one that has ended."""
    services, agent, job_id = services_of(request), agent_of(request), request.match_info["job_id"]
    if _wants_erasure(request):
        erased = await services.cancellation.erase(agent, job_id)
        if erased.disk_name is not None:
            await asyncio.to_thread(services.files.delete, Shelf.OUTPUTS, erased.disk_name)
        services.wakeup.send(Listener.API, job_id)
        return json_response({"success": True, "job_id": job_id, "state": erased.job.state.value, "erased": True})
    job = await services.cancellation.cancel(agent, job_id)
    services.wakeup.send(Listener.INFER, job_id)
    services.wakeup.send(Listener.API, job_id)
    return json_response(await describe_job(services, job))


def _wants_erasure(request: web.Request) -> bool:
    value = request.query.get("erase", "false").lower()
    if value not in ("true", "false", "1", "0"):
        raise InvalidRequest([FieldProblem("erase", "must be true or false")])
    return value in ("true", "1")


@needs(Scope.READ, Rate.READ)
async def list_jobs(request: web.Request) -> web.Response:
    """The agent's own jobs, newest first, a page at a time."""
    services = services_of(request)
    state, limit, cursor = _read_page(request)
    jobs = await services.jobs.list_page(agent_of(request), state, limit + 1, cursor)
    if jobs is None:
        raise InvalidRequest([FieldProblem("cursor", "names no job of yours; begin again without it")])
    page = [await describe_job(services, job) for job in jobs[:limit]]
    next_cursor = jobs[limit - 1].id if len(jobs) > limit else None
    return json_response({"success": True, "jobs": page, "next_cursor": next_cursor})


def _read_page(request: web.Request) -> tuple[JobState | None, int, str | None]:
    """State, limit and cursor of a page. Raises InvalidRequest with every problem."""
    problems = []
    state, limit = request.query.get("state"), request.query.get("limit", str(DEFAULT_PAGE))
    if state is not None and state not in set(JobState):
        problems.append(FieldProblem("state", f"must be one of: {', '.join(JobState)}", list(JobState)))
    if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:9]) <= MAX_PAGE):
        problems.append(FieldProblem("limit", f"must be a whole number from 1 to {MAX_PAGE}", MAX_PAGE, MAX_PAGE))
    if problems:
        raise InvalidRequest(problems)
    return (None if state is None else JobState(state)), int(limit), request.query.get("cursor")
