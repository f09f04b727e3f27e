"""The application: routes, middlewares, and the parts that start and stop with it."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

from aiohttp import web

from umrgen_api.middleware import add_headers, answer_errors, guard, identify
from umrgen_api.rates import RateLimits
from umrgen_api.routes import files, health, jobs, references
from umrgen_api.safety import load_prompt_check
from umrgen_api.sanitiser_pool import SanitiserPool
from umrgen_api.services import SERVICES, Services
from umrgen_core.agent_store import AgentStore
from umrgen_core.claim_store import ClaimStore
from umrgen_core.clock import Clock
from umrgen_core.config import Settings
from umrgen_core.database import Database, open_database
from umrgen_core.errors import ConfigError, Unavailable
from umrgen_core.files import FileStore
from umrgen_core.job_store import JobStore
from umrgen_core.logs import get_logger
from umrgen_core.reference_store import ReferenceStore
from umrgen_core.wakeup import Listener, Wakeup
from umrgen_core.worker_store import WorkerStore

RECOVERY_INTERVAL_S = 1.0
LOG = get_logger("api")

Context = Callable[[web.Application], AsyncIterator[None]]


def build_app(settings: Settings, clock: Clock) -> web.Application:
    """The web tier over the store of `settings`. Raises ConfigError where it must not listen."""
    refuse_open_development_key(settings)
    app = web.Application(middlewares=[identify, answer_errors, guard], client_max_size=1 << 20)
    app.add_routes(
        [
            web.get("/healthz", health.get_health),
            web.get("/readyz", health.get_readiness),
            web.post("/api/v1/upload-reference", references.upload_reference),
            web.get("/api/v1/references", references.list_references),
            web.delete("/api/v1/references/{filename}", references.delete_reference),
            web.post("/api/v1/generate", jobs.generate),
            web.get("/api/v1/status/{job_id}", jobs.get_status),
            web.get("/references/{session_id}/{filename}", files.get_reference),
            web.get("/outputs/{session_id}/{filename}", files.get_output),
        ]
    )
    app.on_response_prepare.append(add_headers)
    app.cleanup_ctx.append(_services_context(settings, clock))
    app.cleanup_ctx.append(_recovery_context)
    return app


def refuse_open_development_key(settings: Settings) -> None:
    """A key that stands in the documentation must not open a server that others can reach."""
    auth, api = settings.auth, settings.api
    if not auth.development_key or auth.development_key_public:
        return
    if api.listens_on_loopback() and not api.public_url:
        return
    raise ConfigError(
        "[auth] development_key is on while the server can be reached from elsewhere ([api] host is not loopback,"
        ' or public_url is set): set development_key = "", or development_key_public = true if you mean it'
    )


def _services_context(settings: Settings, clock: Clock) -> Context:
    async def context(app: web.Application) -> AsyncIterator[None]:
        async with open_database(settings, clock) as database:
            services = _make_services(settings, clock, database)
            app[SERVICES] = services
            await asyncio.to_thread(services.files.prepare)
            await services.agents.set_development_key(settings.auth.development_key)
            await services.claims.adopt_queue()
            yield
            await services.sanitiser.close()
            services.wakeup.close()

    return context


def _make_services(settings: Settings, clock: Clock, database: Database) -> Services:
    data_dir = settings.storage.data_dir
    return Services(
        settings=settings,
        clock=clock,
        database=database,
        agents=AgentStore(database, settings.limits),
        jobs=JobStore(database, settings),
        claims=ClaimStore(database, settings),
        references=ReferenceStore(database, settings.storage.reference_retention_s),
        workers=WorkerStore(database),
        files=FileStore(data_dir),
        sanitiser=SanitiserPool(settings.uploads),
        prompts=load_prompt_check(),
        rates=RateLimits(),
        wakeup=Wakeup(data_dir, Listener.API, f"{os.getpid()}-{uuid.uuid4().hex[:8]}"),
    )


async def _recovery_context(app: web.Application) -> AsyncIterator[None]:
    task = asyncio.create_task(_recover_forever(app[SERVICES]))
    yield
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def _recover_forever(services: Services) -> None:
    """End or requeue what lost its worker, whether or not any worker lives."""
    while True:
        try:
            for recovered in await services.claims.recover_lost():
                LOG.warning(
                    "job_recovered", job_id=recovered.job_id, state=recovered.state.value, reason=recovered.reason
                )
                services.wakeup.send(Listener.INFER, "queued")
        except Unavailable as error:
            LOG.warning("recovery_delayed", error=error.message)
        await asyncio.sleep(RECOVERY_INTERVAL_S)
