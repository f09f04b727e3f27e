"""A job on its way in: the one path on which every interface puts jobs into the queue."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from typing import Any

import structlog
from aiohttp import web

from umrgen_api.middleware import REQUEST_ID
from umrgen_api.render import render_accepted
from umrgen_api.services import services_of
from umrgen_api.tracing import read_traceparent
from umrgen_core.agents import Agent
from umrgen_core.errors import FieldProblem, InvalidRequest
from umrgen_core.job_store import Replay, Submission
from umrgen_core.names import new_job_id
from umrgen_core.requests import AcceptedRequest, accept_request
from umrgen_core.wakeup import Listener

IDEMPOTENCY_KEY = "Idempotency-Key"
_VISIBLE = re.compile(r"[\x21-\x7e]{1,128}")


async def submit_job(request: web.Request, agent: Agent, body: dict[str, Any], submission: Submission | None) -> Replay:
    """Check a generate's body and put its job on disk, or give the first answer to this submission again.

    Raises what is wrong with the request, or that there is no room for it.
    """
    return await submit_checked(request, agent, lambda: check_body(request, agent, body), submission)


async def submit_checked(
    request: web.Request, agent: Agent, check: Callable[[], AcceptedRequest], submission: Submission | None
) -> Replay:
    """Like submit_job; `check` gives what is to be run, and is not asked where the submission stands already."""
    services = services_of(request)
    if submission is not None and (replay := await services.jobs.find_replay(agent, submission)) is not None:
        _name_in_log(replay)
        return replay
    accepted = check()
    job_id, request_id, parent = new_job_id(), request[REQUEST_ID], read_traceparent(request)
    if submission is None:
        placed = await services.jobs.enqueue(agent, job_id, accepted, request_id, parent)
        replay = Replay(render_accepted(*placed), first=True)
    else:
        replay = await services.jobs.enqueue_once(agent, job_id, accepted, request_id, submission, parent)
    _name_in_log(replay)
    services.wakeup.send(Listener.INFER, "queued")
    if replay.first:
        services.database.meter.job_accepted(accepted.model)
    return replay


def _name_in_log(replay: Replay) -> None:
    """The request's own line in the log tells which jobs it led to."""
    before = structlog.contextvars.get_contextvars().get("job_ids", [])
    structlog.contextvars.bind_contextvars(job_ids=[*before, replay.answer["job_id"]])


def check_body(request: web.Request, agent: Agent, body: dict[str, Any]) -> AcceptedRequest:
    """The body with every default filled in. Raises InvalidRequest or SafetyViolation."""
    services = services_of(request)
    accepted = accept_request(body, services.settings.served_models, services.loras, services.settings.webhooks)
    services.prompts.check("prompt", accepted.prompt, agent.safety_off)
    services.prompts.check("negative", accepted.negative, agent.safety_off)
    return accepted


def read_idempotency_key(request: web.Request) -> str | None:
    """The request's Idempotency-Key, or None when it has none. Raises InvalidRequest."""
    keys = request.headers.getall(IDEMPOTENCY_KEY, [])
    if not keys:
        return None
    if len(keys) > 1 or not _VISIBLE.fullmatch(keys[0]):
        raise InvalidRequest([FieldProblem(IDEMPOTENCY_KEY, "must be one value of 1 to 128 visible ASCII characters")])
    return keys[0]


def name_submission(key: str, body: dict[str, Any]) -> Submission:
    """What is asked under a key: the same JSON in whatever order is the same."""
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    return Submission(key, hashlib.sha256(canonical).hexdigest(), render_accepted)
