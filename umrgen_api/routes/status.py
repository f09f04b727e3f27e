"""GET /api/v1/status/{job_id}, at once or when something has changed."""

from __future__ import annotations

import asyncio
import hashlib
import re
from dataclasses import dataclass

from aiohttp import hdrs, web

from umrgen_api.access import FOUND, agent_of, needs
from umrgen_api.errors import json_response
from umrgen_api.rates import Rate
from umrgen_api.render import render_status
from umrgen_api.services import Services, services_of
from umrgen_core.agents import Agent, Scope
from umrgen_core.errors import FieldProblem, InvalidRequest, JobNotFound
from umrgen_core.job_store import Standing
from umrgen_core.jobs import Job
from umrgen_core.sqlite import Connection

MAX_WAIT_S = 60.0
LOOK_AGAIN_S = 10.0
"""How often a waiting request looks whether its client is still there."""
PREFERENCE_APPLIED = "Preference-Applied"
_PREFERRED_WAIT = re.compile(r'(?:^|[,;])\s*wait\s*=\s*"?(\d{1,9})"?\s*(?=$|[,;])', re.IGNORECASE)
_SECONDS = re.compile(r"-?\d{1,9}(?:\.\d{1,30})?(?:[eE]-\d{1,3})?")
"""Any way in which a program writes a float of this size, such as what is left of its deadline: 29.999876543210123."""


@dataclass(frozen=True, slots=True)
class Wait:
    """How long a request waits and for what. `preferred` is the wait that a Prefer header asked for."""

    seconds: float = 0.0
    until_done: bool = False
    preferred: str | None = None


def look_at_job(request: web.Request, connection: Connection, agent: Agent) -> Standing | None:
    """The job that the path names."""
    return services_of(request).jobs.read_standing(connection, agent, request.match_info["job_id"])


@needs(Scope.READ, Rate.READ, look_at_job)
async def get_status(request: web.Request) -> web.Response:
    """Where a job stands."""
    wait, standing = read_wait(request), await _find_standing(request)
    if standing is None:
        raise JobNotFound
    if wait.seconds and not standing.job.state.ended:
        standing = await services_of(request).jobs.describe(await _wait_for_change(request, standing.job, wait))
    return _answer(request, render_status(standing), wait)


async def _find_standing(request: web.Request) -> Standing | None:
    if FOUND not in request:  # the agent was known by something else than a key, as the console's are
        return await services_of(request).jobs.find_standing(agent_of(request), request.match_info["job_id"])
    standing = request[FOUND]
    return standing if isinstance(standing, Standing) else None


async def find_job(services: Services, agent: Agent, job_id: str) -> Job:
    """An own job. Raises JobNotFound."""
    job = await services.jobs.find(agent, job_id)
    if job is None:
        raise JobNotFound
    return job


def read_wait(request: web.Request) -> Wait:
    """`?wait=` and `?until=done`, or `Prefer: wait=`. Raises InvalidRequest for a query that cannot be meant."""
    if not request.query_string and "Prefer" not in request.headers:  # as most reads are
        return Wait()
    until, asked = request.query.get("until", ""), request.query.get("wait")
    problems = []
    if until not in ("", "done"):
        problems.append(FieldProblem("until", 'must be "done" or left out', ["done"], "done"))
    if asked is not None and not (_SECONDS.fullmatch(asked) and 0 <= float(asked) <= MAX_WAIT_S):
        problems.append(FieldProblem("wait", f"must be seconds from 0 to {MAX_WAIT_S:g}", MAX_WAIT_S, MAX_WAIT_S))
    if problems:
        raise InvalidRequest(problems)
    if asked is not None:
        return Wait(float(asked), until == "done")
    preferred = _PREFERRED_WAIT.search(",".join(request.headers.getall("Prefer", [])))
    if preferred is None:
        return Wait(until_done=until == "done")
    return Wait(min(float(preferred[1]), MAX_WAIT_S), until == "done", preferred[1])


async def _wait_for_change(request: web.Request, job: Job, wait: Wait) -> Job:
    services, agent, first = services_of(request), agent_of(request), job.state
    clock = asyncio.get_running_loop().time
    deadline = clock() + wait.seconds
    with services.changes.watch(agent.id, job.id) as watch:
        while True:
            job = await find_job(services, agent, job.id)
            if job.state.ended or (job.state is not first and not wait.until_done):
                return job
            left_s = deadline - clock()
            if left_s <= 0 or services.changes.stopping or request.transport is None:
                return job
            await watch.wait(min(left_s, LOOK_AGAIN_S))


def _answer(request: web.Request, status: dict[str, object], wait: Wait) -> web.Response:
    response = json_response(status)
    digest = hashlib.sha256(response.body if isinstance(response.body, bytes) else b"").hexdigest()[:32]
    if hdrs.IF_NONE_MATCH in request.headers and _is_known(request, digest):
        response = web.Response(status=304)
    response.headers["ETag"] = f'"{digest}"'
    if wait.preferred is not None:
        response.headers[PREFERENCE_APPLIED] = f"wait={wait.preferred}"
    return response


def _is_known(request: web.Request, digest: str) -> bool:
    return any(known.value in (digest, "*") for known in request.if_none_match or ())


async def describe_job(services: Services, job: Job) -> dict[str, object]:
    """The status JSON with its estimates."""
    return render_status(await services.jobs.describe(job))
