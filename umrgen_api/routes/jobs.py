"""POST /api/v1/generate and GET /api/v1/status/{job_id}."""

from __future__ import annotations

from aiohttp import hdrs, web

from umrgen_api.access import agent_of, needs
from umrgen_api.body import read_json
from umrgen_api.errors import json_response
from umrgen_api.middleware import REQUEST_ID
from umrgen_api.rates import Rate
from umrgen_api.render import render_accepted, render_status, status_url
from umrgen_api.services import Services, services_of
from umrgen_core.agents import Scope
from umrgen_core.errors import JobNotFound
from umrgen_core.jobs import Job, JobState
from umrgen_core.names import new_job_id
from umrgen_core.requests import accept_request
from umrgen_core.wakeup import Listener


@needs(Scope.GENERATE, Rate.WRITE)
async def generate(request: web.Request) -> web.Response:
    """Accept a job. When this is answered the job is on disk."""
    services, agent = services_of(request), agent_of(request)
    body = await read_json(request)
    model = services.settings.default_model
    accepted = accept_request(body, model, services.settings.models[model])
    services.prompts.check("prompt", accepted.prompt)
    services.prompts.check("negative", accepted.negative)
    job, position = await services.jobs.enqueue(agent, new_job_id(), accepted, request[REQUEST_ID])
    services.wakeup.send(Listener.INFER, "queued")
    return json_response(render_accepted(job, position), 202, {hdrs.LOCATION: status_url(job.id)})


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
