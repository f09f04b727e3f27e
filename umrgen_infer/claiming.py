"""What the daemon claims next: of which models, and whether anything may be claimed now."""

from __future__ import annotations

from collections.abc import Sequence

from umrgen_core.claim_store import ClaimStore, Waiting
from umrgen_core.clock import Clock
from umrgen_core.config import Settings
from umrgen_core.errors import Unavailable
from umrgen_core.jobs import Claim, Job
from umrgen_core.logs import get_logger
from umrgen_core.worker_store import WorkerState, WorkerStore
from umrgen_infer.residency import Residency
from umrgen_infer.schedule import choose_models, go_together

LOG = get_logger("daemon")


class Claiming:
    """Claims for one worker. While store or disk cannot be had nothing is claimed."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        claims: ClaimStore,
        workers: WorkerStore,
        residency: Residency,
        worker_id: str,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._claims = claims
        self._workers = workers
        self._residency = residency
        self._worker_id = worker_id
        self._may_batch = any(profile.batch > 1 for profile in settings.served_models.values())

    async def claim(self, *, fresh: bool, expected: bool = False) -> Sequence[Claim]:
        """The next job, also one whose model must be loaded first; with `fresh` none with attempts behind it.

        Several where the next jobs can be painted together, none where nothing waits; `expected` where somebody
        has said that a job does.
        """
        try:
            return await self._claim(await self._choose_models(), fresh=fresh, expected=expected)
        except (Unavailable, OSError) as error:  # OSError: the data directory cannot be looked at
            LOG.warning("claim_delayed", error=str(error))
            return ()

    async def claim_ahead(self) -> Sequence[Claim]:
        """As `claim`, unless the next job has attempts behind it or a model must be loaded first."""
        try:
            models = await self._choose_models()
            return await self._claim(models, fresh=True) if self._are_free(models) else ()
        except (Unavailable, OSError) as error:  # OSError: the data directory cannot be looked at
            LOG.warning("claim_delayed", error=str(error))
            return ()

    async def find_ahead(self) -> Waiting | None:
        """The job that `claim_ahead` would claim now, which is likely to be the one that it will claim."""
        try:
            models = await self._choose_models()
            return await self._claims.find_waiting(models) if self._are_free(models) else None
        except Unavailable:
            return None

    async def _claim(self, models: Sequence[str], *, fresh: bool, expected: bool = False) -> Sequence[Claim]:
        if not models:
            return ()
        suits = self._suits if self._may_batch else None
        return await self._claims.claim_several(models, self._worker_id, fresh=fresh, suits=suits, expected=expected)

    def _suits(self, job: Job, claims: Sequence[Claim]) -> bool:
        """Whether a job can be painted together with those that are claimed. Called in the writer's thread."""
        first = claims[0].job
        if first.attempts > 1 or not go_together(first, job):
            return False
        size = self._settings.models[first.model].render_size(first.width, first.height)
        return len(claims) < self._residency.find_most_together(first.model, size.width, size.height)

    def _are_free(self, models: Sequence[str]) -> bool:
        return {*models} <= {*self._residency.resident, *self._residency.find_broken()}

    async def _choose_models(self) -> Sequence[str]:
        broken = self._residency.find_broken()
        lost = await self._list_lost_causes(broken)
        served = [model for model in self._settings.infer.models if model not in broken or model in lost]
        free = [*self._residency.resident, *lost]
        if {*served} <= {*free}:
            return served
        waiting_s = await self._claims.list_waiting_s()
        last_load = self._residency.last_load
        return choose_models(
            {name: min(s, self._residency.find_absence_s(name)) for name, s in waiting_s.items() if name in served},
            free,
            self._clock.boot_ms() / 1000 - last_load.ended_s,
            last_load.took_s,
            self._settings.infer.max_model_wait_s,
        )

    async def _list_lost_causes(self, broken: frozenset[str]) -> list[str]:
        """Of the models that cannot be loaded here, those whose jobs may fail at once: no other worker has them."""
        if not broken:
            return []
        able: set[str] = set()
        for worker in await self._workers.list_all():
            lives = worker.age_s is not None and worker.age_s <= self._settings.jobs.lease_s
            if lives and worker.state is WorkerState.READY and worker.id != self._worker_id:
                able |= {*worker.models}
        return sorted(broken - able)
