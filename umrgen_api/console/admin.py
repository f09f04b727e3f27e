"""The owner's pages about the service: workers, queue and the jobs of every agent, without their prompts."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

from umrgen_api.console.gate import form, page, session_of
from umrgen_api.console.pages import lead_to, show
from umrgen_api.console.sessions import PATH
from umrgen_api.services import Services, services_of
from umrgen_core.agents import Scope
from umrgen_core.errors import FieldProblem, InvalidRequest, OperatorError, QueueFull, Unavailable
from umrgen_core.jobs import JobState
from umrgen_core.logs import get_logger
from umrgen_core.operator_store import JobFilter, OperatorStore
from umrgen_core.overview import OverviewReader
from umrgen_core.queue_control import QueueControl
from umrgen_core.wakeup import Listener

LOG = get_logger("console")
ADMIN = f"{PATH}/admin"
PAGE = 30


@page(Scope.ADMIN)
async def show_service(request: web.Request) -> web.Response:
    """How the service is, and its jobs; `?part=1` is that without the page around it, to be looked at again."""
    return await _show(request)


async def _show(request: web.Request, problem: str | None = None) -> web.Response:
    services, asked = services_of(request), _read_filter(request)
    before = request.query.get("before", "")
    operator = OperatorStore(services.database, services.settings)
    try:
        jobs = await operator.list_jobs(asked, PAGE, int(before) if before.isdecimal() and len(before) < 19 else None)
    except OperatorError as error:
        jobs, problem = None, error.message
    database = services.database
    overview = await OverviewReader(database.reader, database.statements, services.clock, services.settings).read()
    return show(
        request,
        "admin_part.html" if request.query.get("part") else "admin.html",
        status=200 if problem is None else 400,
        overview=overview,
        silent_s=services.settings.jobs.lease_s,
        jobs=jobs,
        asked=asked,
        before=before,
        states=list(JobState),
        problem=problem,
        part=request.rel_url.update_query(part="1").raw_path_qs,
    )


def _read_filter(request: web.Request) -> JobFilter:
    """Which jobs are asked for. Raises InvalidRequest for a state that is none."""
    state = request.query.get("state") or None
    if state is not None and state not in set(JobState):
        raise InvalidRequest([FieldProblem("state", f"must be one of: {', '.join(JobState)}")])
    return JobFilter(agent=request.query.get("agent") or None, state=None if state is None else JobState(state))


@form(Scope.ADMIN)
async def control_queue(request: web.Request, fields: Mapping[str, str]) -> web.Response:
    """Pause the queue, let it run empty, or let it go on."""
    services, action = services_of(request), fields.get("action", "")
    control = QueueControl(services.database)
    actions = {"pause": control.pause, "drain": control.drain, "resume": control.resume}
    if action not in actions:
        raise InvalidRequest([FieldProblem("action", f"must be one of: {', '.join(actions)}")])
    await actions[action]()
    services.wakeup.send(Listener.INFER, "queued")
    record(request, f"queue_{action}", "")
    return lead_to(ADMIN)


@form(Scope.ADMIN)
async def control_job(request: web.Request, fields: Mapping[str, str]) -> web.Response:
    """Cancel a job, or run an ended one again as a new job of its agent."""
    services, action, job_id = services_of(request), fields.get("action", ""), request.match_info["job_id"]
    if action not in ("cancel", "retry"):
        raise InvalidRequest([FieldProblem("action", "must be cancel or retry")])
    try:
        await _act(services, action, job_id)
    except (OperatorError, QueueFull, Unavailable) as error:
        return await _show(request, error.message)
    record(request, f"job_{action}", job_id)
    return lead_to(ADMIN)


async def _act(services: Services, action: str, job_id: str) -> None:
    operator = OperatorStore(services.database, services.settings)
    if action == "retry":
        await operator.retry(job_id)
        services.wakeup.send(Listener.INFER, "queued")
        return
    await operator.cancel(job_id)
    services.wakeup.send(Listener.INFER, job_id)
    services.wakeup.send(Listener.API, job_id)


def record(request: web.Request, action: str, target: str) -> None:
    """Log what the owner did: the one trace of who changed what."""
    LOG.info("owner_acted", agent=session_of(request).agent.name, action=action, target=target)
