"""POST /api/v1/generate, GET /api/v1/jobs and DELETE /api/v1/jobs/{job_id}."""

from __future__ import annotations

import asyncio

from aiohttp import hdrs, web

from umrgen_api.access import agent_of, needs
from umrgen_api.body import read_json
from umrgen_api.errors import json_response
from umrgen_api.rates import Rate
from umrgen_api.routes.status import describe_job
from umrgen_api.services import Services, services_of
from umrgen_api.submission import name_submission, read_idempotency_key, submit_job
from umrgen_core.agents import Agent, Scope
from umrgen_core.errors import FieldProblem, InvalidRequest
from umrgen_core.files import Shelf
from umrgen_core.jobs import Job, JobState
from umrgen_core.wakeup import Listener

DEFAULT_PAGE = 20
MAX_PAGE = 100


@needs(Scope.GENERATE, Rate.WRITE)
async def generate(request: web.Request) -> web.Response:
    """Accept a job. When this is answered the job is on disk."""
    body = await read_json(request)
    key = read_idempotency_key(request)
    replay = await submit_job(request, agent_of(request), body, None if key is None else name_submission(key, body))
    return _accepted(replay.answer, replayed=not replay.first)


def _accepted(answer: dict[str, object], *, replayed: bool) -> web.Response:
    headers = {hdrs.LOCATION: str(answer["status_url"])} | ({"Idempotent-Replayed": "true"} if replayed else {})
    return json_response(answer, 202, headers)


@needs(Scope.GENERATE, Rate.READ)
async def cancel_job(request: web.Request) -> web.Response:
    """Cancel a job, or erase one that has ended."""
    services, agent, job_id = services_of(request), agent_of(request), request.match_info["job_id"]
    if _wants_erasure(request):
        job = await erase_own(services, agent, job_id)
        return json_response({"success": True, "job_id": job_id, "state": job.state.value, "erased": True})
    return json_response(await describe_job(services, await cancel_own(services, agent, job_id)))


async def cancel_own(services: Services, agent: Agent, job_id: str) -> Job:
    """Cancel a job and tell both processes; the job as it now stands. Raises JobNotFound."""
    job = await services.cancellation.cancel(agent, job_id)
    services.wakeup.send(Listener.INFER, job_id)
    services.wakeup.send(Listener.API, job_id)
    return job


async def erase_own(services: Services, agent: Agent, job_id: str) -> Job:
    """Erase an ended job and its file; the job as it was. Raises JobNotFound, InvalidRequest or ReferenceInUse."""
    erased = await services.cancellation.erase(agent, job_id)
    if erased.disk_name is not None:
        await asyncio.to_thread(services.files.delete, Shelf.OUTPUTS, erased.disk_name)
    services.wakeup.send(Listener.API, job_id)
    return erased.job


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
