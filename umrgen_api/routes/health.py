"""GET /healthz and /readyz, without a key."""

from __future__ import annotations

import asyncio

from aiohttp import web

from umrgen_api.errors import json_response
from umrgen_api.services import Services, services_of
from umrgen_core.errors import Unavailable
from umrgen_core.integrity import IntegrityState
from umrgen_core.queue_control import QueueControl
from umrgen_core.schema import SCHEMA_VERSION
from umrgen_core.worker_store import WorkerState

MISSED_HEARTBEATS = 3
"""A worker that has missed this many is not counted on."""


async def get_health(_: web.Request) -> web.Response:
    """200 while the process serves."""
    return json_response({"success": True, "status": "ok"})


async def get_readiness(request: web.Request) -> web.Response:
    """200 when store and a worker with its model loaded are there and jobs are accepted; else 503 with the reasons."""
    services = services_of(request)
    reasons = await find_reasons(services)
    if reasons:
        return json_response({"success": False, "status": "not ready", "reasons": reasons}, 503)
    paused = {"paused": True} if await _is_paused(services) else {}
    return json_response({"success": True, "status": "ready", "reasons": [], **paused})


async def _is_paused(services: Services) -> bool:
    """Whether jobs are accepted and wait: no reason to send them elsewhere, so it is told beside the reasons."""
    try:
        return (await QueueControl(services.database).read()).paused
    except Unavailable:
        return False


async def find_reasons(services: Services) -> list[str]:
    """Why a job would not be accepted and run now; empty when it would."""
    try:
        version = await services.database.reader.read_version()
        if version != SCHEMA_VERSION:
            return [f"the store has schema version {version}, {SCHEMA_VERSION} is needed"]
        queue = await QueueControl(services.database).read()
        workers = await services.workers.list_all()
    except Unavailable:
        return ["the store does not answer"]
    integrity = services.database.integrity.state
    if integrity is not IntegrityState.GOOD:
        return [f"the store is {integrity.value}"]
    if await asyncio.to_thread(services.disk.is_low):
        return ["the disk is nearly full"]
    if queue.draining:
        return ["draining: the owner lets the queue run empty, nothing new is accepted"]
    silent_s = services.settings.jobs.heartbeat_s * MISSED_HEARTBEATS
    seen = [w for w in workers if w.age_s is not None and w.age_s <= silent_s]
    if any(worker.state is WorkerState.READY for worker in seen):
        return []
    if any(worker.state is WorkerState.LOADING for worker in seen):
        return ["the worker is loading its model"]
    return ["no worker has been seen lately"]
