"""What every handler is given: one value, made at start, under one application key."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web

from umrgen_api.changes import Changes
from umrgen_api.rates import RateLimits
from umrgen_api.safety import PromptCheck
from umrgen_api.sanitiser_pool import SanitiserPool
from umrgen_core.agent_store import AgentStore
from umrgen_core.cancellation import Cancellation
from umrgen_core.claim_store import ClaimStore
from umrgen_core.clock import Clock
from umrgen_core.config import Settings
from umrgen_core.database import Database
from umrgen_core.disk import DiskGuard
from umrgen_core.event_store import EventStore
from umrgen_core.files import FileStore
from umrgen_core.job_store import JobStore
from umrgen_core.loras import LoraShelf
from umrgen_core.recovery_store import RecoveryStore
from umrgen_core.reference_store import ReferenceStore
from umrgen_core.retention_store import RetentionStore
from umrgen_core.verified_files import VerifiedFiles
from umrgen_core.wakeup import Wakeup
from umrgen_core.worker_store import WorkerStore


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of a running web tier."""

    settings: Settings
    clock: Clock
    database: Database
    agents: AgentStore
    jobs: JobStore
    claims: ClaimStore
    recovery: RecoveryStore
    references: ReferenceStore
    workers: WorkerStore
    files: FileStore
    verified: VerifiedFiles
    disk: DiskGuard
    retention: RetentionStore
    cancellation: Cancellation
    sanitiser: SanitiserPool
    prompts: PromptCheck
    loras: LoraShelf
    rates: RateLimits
    events: EventStore
    changes: Changes
    wakeup: Wakeup


SERVICES = web.AppKey("services", Services)


def services_of(request: web.Request) -> Services:
    """The services of the application that serves `request`."""
    return request.app[SERVICES]
