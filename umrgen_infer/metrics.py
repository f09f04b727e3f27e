"""What the daemon counts: runs, models, caches, and the devices it paints on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import monotonic

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from umrgen_core.gpus import Gpu, Gpus, choose_visible
from umrgen_core.metrics.labels import LOAD_BUCKETS_S
from umrgen_core.metrics.store import StoreMeter
from umrgen_core.worker_store import WorkerState
from umrgen_infer.run import Outcome


class DaemonMetrics(StoreMeter):
    """Counts, in a registry that it is given. Its calls may come from any thread."""

    def __init__(
        self, registry: CollectorRegistry, served: Iterable[str], now_s: Callable[[], float] = monotonic
    ) -> None:
        super().__init__(registry, served)
        self.registry = registry
        self._now_s = now_s
        self._began_s = now_s()
        self._make_run_metrics()
        self._make_model_metrics()
        self._states = Gauge("umrgen_worker_state", "1 for the state it is in.", ["state"], registry=registry)
        self._ready_seconds = Gauge(
            "umrgen_worker_ready_seconds", "From its start until it first claimed jobs; 0 before.", registry=registry
        )
        self._wanted = Counter(
            "umrgen_reference_cache_lookups",
            "Decoded references asked for, ahead or in a run, that were kept (hit) or not (miss).",
            ["result"],
            registry=registry,
        )
        self._show_own_from_the_start()
        registry.register(GpuReadings(Gpus()))

    def _make_run_metrics(self) -> None:
        self._runs = Counter(
            "umrgen_runs_ended", "Runs by their outcome.", ["model", "outcome"], registry=self.registry
        )
        self._lost = Counter(
            "umrgen_leases_lost", "Runs that were stopped because another holds their job.", registry=self.registry
        )
        self._shortages = Counter(
            "umrgen_out_of_memory", "Runs that found no room on the device.", ["model"], registry=self.registry
        )

    def _make_model_metrics(self) -> None:
        self._loads = Histogram(
            "umrgen_model_load_seconds",
            "Loads of models.",
            ["model"],
            buckets=LOAD_BUCKETS_S,
            registry=self.registry,
        )
        self._failures = Counter("umrgen_model_load_failures", "Loads that failed.", ["model"], registry=self.registry)
        self._evictions = Counter(
            "umrgen_model_evictions", "Models pushed out of the device's memory.", ["model"], registry=self.registry
        )
        self._resident = Gauge(
            "umrgen_model_resident", "1 while the model is loaded.", ["model"], registry=self.registry
        )

    def _show_own_from_the_start(self) -> None:
        for model in self.models.names:
            for outcome in Outcome:
                self._runs.labels(model, outcome)
            for metric in (self._shortages, self._loads, self._failures, self._evictions, self._resident):
                metric.labels(model)
        for result in ("hit", "miss"):
            self._wanted.labels(result)
        self.worker_changed(WorkerState.LOADING)

    def run_ended(self, model: str, outcome: str, *, lease_lost: bool) -> None:
        """See Meter."""
        self._runs.labels(self.models.label(model), outcome).inc()
        if lease_lost:
            self._lost.inc()

    def model_loaded(self, model: str, took_s: float) -> None:
        """See Meter."""
        self._loads.labels(self.models.label(model)).observe(took_s)
        self._resident.labels(self.models.label(model)).set(1)

    def model_not_loaded(self, model: str) -> None:
        """See Meter."""
        self._failures.labels(self.models.label(model)).inc()

    def model_evicted(self, model: str) -> None:
        """See Meter."""
        self._evictions.labels(self.models.label(model)).inc()
        self._resident.labels(self.models.label(model)).set(0)

    def ran_out_of_memory(self, model: str) -> None:
        """See Meter."""
        self._shortages.labels(self.models.label(model)).inc()

    def reference_wanted(self, *, kept: bool) -> None:
        """See Meter."""
        self._wanted.labels("hit" if kept else "miss").inc()

    def worker_changed(self, state: str) -> None:
        """See Meter."""
        if state == WorkerState.READY:
            self._ready_seconds.set(self._now_s() - self._began_s)
        for one in WorkerState:
            self._states.labels(one).set(one == state)


class GpuReadings(Collector):
    """The devices that this process may paint on, as the driver sees them; nothing where there is none."""

    def __init__(self, gpus: Gpus) -> None:
        self._gpus = gpus

    def describe(self) -> Iterable[Metric]:
        """Nothing: a registry need not ask the driver to learn the names."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """One series a device in each family, under its index."""
        gpus = choose_visible(self._gpus.read() or [])
        yield GaugeMetricFamily("umrgen_gpus", "Devices that the driver shows to this process.", value=len(gpus))
        yield _family("umrgen_gpu_memory_used_bytes", "Memory taken, by whomever.", gpus, lambda g: g.memory_used_bytes)
        yield _family("umrgen_gpu_memory_total_bytes", "Memory there is.", gpus, lambda g: g.memory_total_bytes)
        what = "Share of the last moments in which a kernel ran."
        yield _family("umrgen_gpu_utilisation_ratio", what, gpus, lambda g: g.utilisation)
        yield _family("umrgen_gpu_temperature_celsius", "Temperature of the chip.", gpus, lambda g: g.temperature_c)
        yield _family("umrgen_gpu_power_watts", "Power that is drawn.", gpus, lambda g: g.power_w)


def _family(name: str, what: str, gpus: list[Gpu], read: Callable[[Gpu], float | None]) -> Metric:
    family = GaugeMetricFamily(name, what, labels=["gpu"])
    for gpu in gpus:
        value = read(gpu)
        if value is not None:
            family.add_metric([str(gpu.index)], float(value))
    return family
