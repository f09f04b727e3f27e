"""What each process counts of its work on store, jobs and webhooks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram

from umrgen_core.jobs import JobState
from umrgen_core.meter import Meter
from umrgen_core.metrics.labels import (
    BATCH_BUCKETS,
    CACHES,
    ENDS,
    STAGE_BUCKETS_S,
    STAGES,
    STORE_BUCKETS_S,
    Models,
)

REQUEUED = ("given_back", "released", "worker_lost")
TRIED = ("delivered", "delayed", "failed")


class StoreMeter(Meter):
    """Counts, in a registry that it is given. Its calls may come from any thread."""

    def __init__(self, registry: CollectorRegistry, served: Iterable[str]) -> None:
        self.models = Models(served)
        self._make_store_metrics(registry)
        self._make_job_metrics(registry)
        self._tried = Counter(
            "umrgen_webhook_attempts", "Attempts at webhooks by what came of them.", ["outcome"], registry=registry
        )
        for outcome in TRIED:
            self._tried.labels(outcome)
        self._show_from_the_start()

    def _make_store_metrics(self, registry: CollectorRegistry) -> None:
        self._transaction = Histogram(
            "umrgen_store_transaction_seconds",
            "Write transactions: from the lock to the commit on disk.",
            buckets=STORE_BUCKETS_S,
            registry=registry,
        )
        self._lock_wait = Histogram(
            "umrgen_store_lock_wait_seconds",
            "How long write transactions waited for the lock that the processes share.",
            buckets=STORE_BUCKETS_S,
            registry=registry,
        )
        self._batch = Histogram(
            "umrgen_store_batch_items", "Writes in one transaction.", buckets=BATCH_BUCKETS, registry=registry
        )
        self._read = Histogram(
            "umrgen_store_read_seconds",
            "Reads: the way to the reader's thread and back, with the reads that go along.",
            buckets=STORE_BUCKETS_S,
            registry=registry,
        )
        self._write_failures = Counter(
            "umrgen_store_write_failures", "Write transactions that were given up.", registry=registry
        )
        self._read_failures = Counter("umrgen_store_read_failures", "Statements that failed.", registry=registry)

    def _make_job_metrics(self, registry: CollectorRegistry) -> None:
        self._accepted = Counter("umrgen_jobs_accepted", "Jobs put on disk.", ["model"], registry=registry)
        self._claimed = Counter("umrgen_jobs_claimed", "Jobs taken by a worker.", ["model"], registry=registry)
        self._ended = Counter(
            "umrgen_jobs_ended",
            "Jobs that ended, by state and, where they failed, error code.",
            ["model", "state", "error_code"],
            registry=registry,
        )
        self._requeued = Counter(
            "umrgen_jobs_requeued", "Jobs that came back to the queue.", ["model", "reason"], registry=registry
        )
        self._stages = Histogram(
            "umrgen_job_stage_seconds",
            "Stages of completed jobs.",
            ["model", "stage"],
            buckets=STAGE_BUCKETS_S,
            registry=registry,
        )
        self._lookups = Counter(
            "umrgen_pipeline_cache_lookups",
            "Prompts and references of completed jobs that the pipeline had encoded before (hit) or not (miss).",
            ["cache", "result"],
            registry=registry,
        )

    def _show_from_the_start(self) -> None:
        """A series that appears with its first event hides that event from every rate."""
        for model in self.models.names:
            self._accepted.labels(model)
            self._claimed.labels(model)
            for state, code in ENDS:
                self._ended.labels(model, state, code)
            for reason in REQUEUED:
                self._requeued.labels(model, reason)
        for cache in CACHES:
            for result in ("hit", "miss"):
                self._lookups.labels(cache, result)

    def wrote(self, items: int, lock_wait_s: float, took_s: float) -> None:
        """See Meter."""
        self._batch.observe(items)
        self._lock_wait.observe(lock_wait_s)
        self._transaction.observe(took_s)

    def write_failed(self) -> None:
        """See Meter."""
        self._write_failures.inc()

    def read(self, took_s: float) -> None:
        """See Meter."""
        self._read.observe(took_s)

    def read_failed(self) -> None:
        """See Meter."""
        self._read_failures.inc()

    def job_accepted(self, model: str) -> None:
        """See Meter."""
        self._accepted.labels(self.models.label(model)).inc()

    def job_claimed(self, model: str) -> None:
        """See Meter."""
        self._claimed.labels(self.models.label(model)).inc()

    def job_completed(self, model: str, timings: Mapping[str, float], ran_with: Mapping[str, object]) -> None:
        """See Meter."""
        label = self.models.label(model)
        self._ended.labels(label, JobState.COMPLETED, "").inc()
        for stage in STAGES:
            if stage in timings:
                self._stages.labels(label, stage).observe(timings[stage])
        looked_up = ran_with.get("caches")
        if isinstance(looked_up, Mapping):
            self._count_lookups(looked_up)

    def _count_lookups(self, counts: Mapping[str, int]) -> None:
        for cache in CACHES:
            self._lookups.labels(cache, "hit").inc(counts.get(f"{cache}_hits", 0))
            self._lookups.labels(cache, "miss").inc(counts.get(f"{cache}_misses", 0))

    def job_ended(self, model: str, state: str, error_code: str) -> None:
        """See Meter."""
        self._ended.labels(self.models.label(model), state, error_code).inc()

    def job_requeued(self, model: str, reason: str) -> None:
        """See Meter."""
        self._requeued.labels(self.models.label(model), reason).inc()

    def webhook_tried(self, outcome: str) -> None:
        """See Meter."""
        self._tried.labels(outcome).inc()
