"""One job, the gallery of pictures, and the queue, each of the signed-in agent's own."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

from umrgen_api.console.gate import form, page, session_of
from umrgen_api.console.pages import lead_to, show
from umrgen_api.console.sessions import PATH
from umrgen_api.console.views import view_job, view_row
from umrgen_api.routes.jobs import cancel_own, erase_own
from umrgen_api.routes.status import find_job
from umrgen_api.services import Services, services_of
from umrgen_core.agents import Scope
from umrgen_core.errors import FieldProblem, InvalidRequest
from umrgen_core.jobs import JobState
from umrgen_core.queue_control import QueueControl
from umrgen_core.worker_store import WorkerState

PAGE = 24
RECENT = 12


@page(Scope.READ)
async def show_job(request: web.Request) -> web.Response:
    """A job and what became of it; `?part=1` is the job alone, for scripts that put it into a page."""
    services, agent = services_of(request), session_of(request).agent
    job = await find_job(services, agent, request.match_info["job_id"])
    template = "job_part.html" if request.query.get("part") else "job.html"
    return show(request, template, job=await view_job(services, agent, job))


@form(Scope.GENERATE)
async def cancel_job(request: web.Request, _: Mapping[str, str]) -> web.Response:
    """Cancel it, and look at it again."""
    job_id = request.match_info["job_id"]
    await cancel_own(services_of(request), session_of(request).agent, job_id)
    return lead_to(f"{PATH}/jobs/{job_id}")


@form(Scope.GENERATE)
async def erase_job(request: web.Request, _: Mapping[str, str]) -> web.Response:
    """Delete prompt and picture for good, and go back to the gallery."""
    await erase_own(services_of(request), session_of(request).agent, request.match_info["job_id"])
    return lead_to(f"{PATH}/gallery")


@page(Scope.READ)
async def show_gallery(request: web.Request) -> web.Response:
    """The finished pictures, newest first, a page at a time."""
    services, agent = services_of(request), session_of(request).agent
    cursor = request.query.get("cursor")
    jobs = await services.jobs.list_page(agent, JobState.COMPLETED, PAGE + 1, cursor)
    if jobs is None:
        raise InvalidRequest([FieldProblem("page", "names no picture of yours; it may have been deleted")])
    shown = [await view_row(services, job) for job in jobs[:PAGE]]
    return show(
        request, "gallery.html", jobs=shown, next_cursor=jobs[PAGE - 1].id if len(jobs) > PAGE else None, cursor=cursor
    )


@page(Scope.READ)
async def show_queue(request: web.Request) -> web.Response:
    """The agent's own jobs under way, those that ended last, and whether anybody works."""
    services, agent = services_of(request), session_of(request).agent
    active = [await view_row(services, job) for job in await services.jobs.list_active(agent)]
    recent = await services.jobs.list_page(agent, None, RECENT + len(active), None) or []
    ended = [await view_row(services, job) for job in recent if job.state.ended][:RECENT]
    return show(
        request,
        "queue_part.html" if request.query.get("part") else "queue.html",
        active=active,
        ended=ended,
        limit=agent.limits.concurrent_jobs,
        control=await QueueControl(services.database).read(),
        workers=await count_workers(services),
    )


async def count_workers(services: Services) -> dict[str, int]:
    """How many workers are in each state, of those that were heard from lately."""
    counts = dict.fromkeys(WorkerState, 0)
    for worker in await services.workers.list_all():
        if worker.age_s is not None and worker.age_s <= services.settings.jobs.lease_s:
            counts[worker.state] += 1
    return {state.value: count for state, count in counts.items()}
