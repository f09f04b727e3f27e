"""GET /healthz and /readyz, without a key."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from aiohttp import web

from umrgen_api.errors import json_response
from umrgen_api.services import Services, services_of
from umrgen_core.errors import Unavailable
from umrgen_core.integrity import IntegrityState
from umrgen_core.queue_control import QueueControl, QueueState
from umrgen_core.schema import SCHEMA_VERSION
from umrgen_core.worker_store import Worker, WorkerState

MISSED_HEARTBEATS = 3
"""A worker that has missed this many is not counted on."""


async def get_health(_: web.Request) -> web.Response:
    """200 while the process serves."""
    return json_response({"success": True, "status": "ok"})


async def get_readiness(request: web.Request) -> web.Response:
    """200 when store and a worker with its model loaded are there and jobs are accepted; else 503 with the reasons."""
    services = services_of(request)
    try:
        version = await services.database.reader.read_version()
        if version != SCHEMA_VERSION:
            return _refuse([f"the store has schema version {version}, {SCHEMA_VERSION} is needed"])
        queue = await QueueControl(services.database).read()
        workers = await services.workers.list_all()
    except Unavailable:
        return _refuse(["the store does not answer"])
    if reasons := await _find_reasons(services, queue, workers):
        return _refuse(reasons)
    # Paused, jobs are accepted and wait: no reason to send them elsewhere, so it is told beside the reasons.
    paused = {"paused": True} if queue.paused else {}
    return json_response({"success": True, "status": "ready", "reasons": [], **paused})


def _refuse(reasons: list[str]) -> web.Response:
    return json_response({"success": False, "status": "not ready", "reasons": reasons}, 503)


async def _find_reasons(services: Services, queue: QueueState, workers: Sequence[Worker]) -> list[str]:
    """Why a job would not be accepted and run now; empty when it would."""
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
