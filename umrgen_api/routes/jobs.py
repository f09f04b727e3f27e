"""POST /api/v1/generate and GET /api/v1/status/{job_id}."""

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
from umrgen_api.render import render_accepted, render_status
from umrgen_api.services import Services, services_of
from umrgen_core.agents import Scope
from umrgen_core.errors import FieldProblem, InvalidRequest, JobNotFound
from umrgen_core.files import Shelf
from umrgen_core.job_store import Replay, Submission
from umrgen_core.jobs import Job, JobState
from umrgen_core.names import new_job_id
from umrgen_core.requests import accept_request
from umrgen_core.wakeup import Listener

IDEMPOTENCY_KEY = "Idempotency-Key"
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
async def get_status(request: web.Request) -> web.Response:
    """Where a job stands."""
    services = services_of(request)
    job = await services.jobs.find(agent_of(request), request.match_info["job_id"])
    if job is None:
        raise JobNotFound
    return json_response(await describe_job(services, job))


async def describe_job(services: Services, job: Job) -> dict[str, object]:
    """The status JSON with its estimates."""
    if job.state is JobState.QUEUED:
        return render_status(job, await services.jobs.locate(job), None)
    if job.state is JobState.RUNNING:
        return render_status(job, None, await _rest_of_run_s(services, job))
    return render_status(job, None, None)


async def _rest_of_run_s(services: Services, job: Job) -> float | None:
    run_s = await services.jobs.find_run_time(job)
    if run_s is None or job.started_at_us is None:
        return None
    elapsed_s = (services.clock.wall_us() - job.started_at_us) / 1e6
    return max(run_s - max(elapsed_s, 0.0), 0.0)
