"""The application: routes, middlewares, and the parts that start and stop with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

from aiohttp import hdrs, web

from umrgen_api.access import Handler
from umrgen_api.changes import Changes
from umrgen_api.console.routes import CONSOLE_ROUTES, add_console
from umrgen_api.cors import allow_origin, answer_preflights
from umrgen_api.metrics import WebMetrics
from umrgen_api.middleware import REQUEST_LOG, add_headers, answer_errors, guard, identify, log_request
from umrgen_api.openai import routes as openai
from umrgen_api.rates import RateLimits
from umrgen_api.request_log import RequestLog
from umrgen_api.routes import events, files, health, jobs, me, models, openapi, pages, references, status
from umrgen_api.safety import load_prompt_check
from umrgen_api.sanitiser_pool import SanitiserPool
from umrgen_api.services import SERVICES, Services
from umrgen_api.tracing import add_tracing
from umrgen_api.upkeep import Upkeep
from umrgen_api.webhook_sender import Sender
from umrgen_api.webhooks import Deliveries
from umrgen_core.agent_store import AgentStore
from umrgen_core.cancellation import Cancellation
from umrgen_core.claim_store import ClaimStore
from umrgen_core.clock import Clock
from umrgen_core.config import Settings
from umrgen_core.database import Database, open_database
from umrgen_core.disk import DiskGuard
from umrgen_core.errors import ConfigError
from umrgen_core.event_store import EventStore
from umrgen_core.files import FileStore
from umrgen_core.job_store import JobStore
from umrgen_core.loras import LoraShelf
from umrgen_core.metrics.listener import show_metrics
from umrgen_core.metrics.readings import StoreReadings
from umrgen_core.metrics.registry import make_registry
from umrgen_core.names import new_process_id
from umrgen_core.recovery_store import RecoveryStore
from umrgen_core.reference_store import ReferenceStore
from umrgen_core.retention_store import RetentionStore
from umrgen_core.verified_files import VerifiedFiles
from umrgen_core.wakeup import Listener, Wakeup
from umrgen_core.worker_store import WorkerStore

Context = Callable[[web.Application], AsyncIterator[None]]

METRICS = web.AppKey("metrics", WebMetrics)

ROUTES: tuple[tuple[str, str, Handler], ...] = (
    ("GET", "/healthz", health.get_health),
    ("GET", "/readyz", health.get_readiness),
    ("GET", "/llms.txt", pages.get_llms),
    ("GET", "/skill.md", pages.get_skill),
    ("GET", "/docs", openapi.get_docs),
    ("GET", "/docs/openapi.json", openapi.get_public_description),
    ("GET", "/docs/{asset}", openapi.get_docs_asset),
    ("POST", "/api/v1/upload-reference", references.upload_reference),
    ("GET", "/api/v1/references", references.list_references),
    ("DELETE", "/api/v1/references/{filename}", references.delete_reference),
    ("POST", "/api/v1/generate", jobs.generate),
    ("GET", "/api/v1/status/{job_id}", status.get_status),
    ("GET", "/api/v1/events/{job_id}", events.stream_events),
    ("GET", "/api/v1/models", models.list_models),
    ("GET", "/api/v1/me", me.get_me),
    ("GET", "/api/v1/openapi.json", openapi.get_description),
    ("GET", "/api/v1/jobs", jobs.list_jobs),
    ("DELETE", "/api/v1/jobs/{job_id}", jobs.cancel_job),
    ("POST", "/v1/images/generations", openai.generate_images),
    ("POST", "/v1/images/edits", openai.edit_images),
    ("GET", "/v1/models", openai.list_models),
    ("GET", "/v1/models/{model}", openai.get_model),
    ("GET", "/references/{session_id}/{filename}", files.get_reference),
    ("GET", "/outputs/{session_id}/{filename}", files.get_output),
)


def build_app(settings: Settings, clock: Clock, *, listens_locally: bool | None = None) -> web.Application:
    """The web tier over the store of `settings`. Raises ConfigError where it must not listen.

    `listens_locally` says whether only this machine can connect; without it [api] host does.
    """
    refuse_open_development_key(settings, listens_locally)
    app = web.Application(middlewares=[identify, answer_preflights, answer_errors, guard], client_max_size=1 << 20)
    if settings.console.enabled:
        add_console(app, settings)
    for method, path, handler in ROUTES + (CONSOLE_ROUTES if settings.console.enabled else ()):
        add = partial(app.router.add_route, method)
        if method == "GET":
            # A stream has no HEAD: it would be its events.
            add = partial(app.router.add_get, allow_head=not path.endswith("/events/{job_id}"))
        add(path, handler, expect_handler=meet_expectation)
    add_tracing(app, settings.trace, clock)
    app[METRICS] = WebMetrics(make_registry("api"), settings.served_models)
    app[REQUEST_LOG] = RequestLog(app[METRICS])
    app.on_response_prepare.extend((add_headers, allow_origin, log_request))
    app.on_shutdown.append(answer_waiters)
    app.cleanup_ctx.append(_services_context(settings, clock))
    return app


async def answer_waiters(app: web.Application) -> None:
    """A stopping server answers those who wait with things as they stand."""
    app[SERVICES].changes.stop()


async def meet_expectation(request: web.Request) -> None:
    """Ask for the body where the client waits to be asked; every other expectation is left unanswered."""
    if request.headers.get(hdrs.EXPECT, "").lower() == "100-continue" and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


def refuse_open_development_key(settings: Settings, listens_locally: bool | None = None) -> None:
    """A key that stands in the documentation must not open a server that others can reach."""
    auth, api = settings.auth, settings.api
    if not auth.development_key or auth.development_key_public:
        return
    local = api.listens_on_loopback() if listens_locally is None else listens_locally
    if local and not api.public_url:
        return
    raise ConfigError(
        "[auth] development_key is on while the server can be reached from elsewhere ([api] host, or a socket of"
        " systemd's, is not loopback, or public_url is set):"
        ' set development_key = "", or development_key_public = true if you mean it'
    )


def _services_context(settings: Settings, clock: Clock) -> Context:
    async def context(app: web.Application) -> AsyncIterator[None]:
        metrics = app[METRICS]
        async with open_database(settings, clock, meter=metrics) as database:
            services = _make_services(settings, clock, database, metrics)
            app[SERVICES] = services
            metrics.watch_waiting(services.changes.count_waiting)
            StoreReadings(settings, clock, database.statements).register(metrics.registry)
            await asyncio.to_thread(services.files.prepare)
            deliveries = Deliveries(settings, database, Sender(settings.webhooks))
            services.wakeup.listen(_tell(services, deliveries))
            upkeep = Upkeep(services)
            await upkeep.start()
            deliveries.start()
            async with show_metrics("api_listen", settings.metrics.api_listen, metrics.registry):
                yield
            await deliveries.stop()
            await upkeep.stop()
            await services.sanitiser.close()
            services.wakeup.close()

    return context


def _tell(services: Services, deliveries: Deliveries) -> Callable[[str], None]:
    def tell(job_id: str) -> None:
        services.changes.notify(job_id)
        deliveries.wake()

    return tell


def _make_services(settings: Settings, clock: Clock, database: Database, metrics: WebMetrics) -> Services:
    data_dir = settings.storage.data_dir
    files_store = FileStore(data_dir)
    event_store = EventStore(database)
    return Services(
        settings=settings,
        clock=clock,
        database=database,
        agents=AgentStore(database, settings.limits),
        jobs=JobStore(database, settings),
        claims=ClaimStore(database, settings),
        recovery=RecoveryStore(database, settings),
        references=ReferenceStore(database, settings.storage.reference_retention_s),
        workers=WorkerStore(database),
        files=files_store,
        verified=VerifiedFiles(files_store),
        disk=DiskGuard(settings.storage),
        retention=RetentionStore(database),
        cancellation=Cancellation(database, settings.storage.retention_s),
        sanitiser=SanitiserPool(settings.uploads, metrics.note_upload),
        prompts=load_prompt_check(Path(settings.safety.lists) if settings.safety.lists else None),
        loras=LoraShelf(settings.infer.loras),
        rates=RateLimits(),
        events=event_store,
        changes=Changes(event_store),
        wakeup=Wakeup(data_dir, Listener.API, new_process_id()),
    )
