"""A run as spans, made from the times that were measured anyway."""

from __future__ import annotations

import time
from collections.abc import Mapping

from umrgen_core.clock import Clock
from umrgen_core.jobs import Claim
from umrgen_core.tracing import SpanKind, Tracer

IN_THE_PIPELINE = ("load_model", "encode", "denoise", "decode")
"""Stages that follow one another without a gap until the picture is painted."""
FAILURES = frozenset({"failed", "released", "timed_out", "device_lost"})
"""Outcomes that somebody should look at."""


class RunTrace:
    """What one run tells a tracer; nothing where there is none."""

    def __init__(self, tracer: Tracer | None, clock: Clock, claim: Claim) -> None:
        self._tracer = tracer
        self._clock = clock
        self._claim = claim
        self._ended: dict[str, float] = {}

    def note_end(self, stage: str) -> None:
        """A stage is over, now."""
        self._ended[stage] = time.perf_counter()

    def send(self, began: float, timings: Mapping[str, float], outcome: str) -> None:
        """The run is over: `began` as perf_counter tells it, `timings` the seconds of its stages."""
        if self._tracer is None:
            return
        job, now, now_ns = self._claim.job, time.perf_counter(), self._clock.wall_us() * 1000
        told: dict[str, str | int] = {"umrgen.job_id": job.id, "umrgen.request_id": job.request_id}

        def to_wall(moment: float) -> int:
            return now_ns - int((now - moment) * 1e9)

        if job.attempts == 1 and job.started_at_us is not None:  # what later attempts waited for was not the queue
            waited = self._tracer.begin("queued", SpanKind.INTERNAL, job.created_at_us * 1000, job.traceparent, told)
            waited.end(max(job.started_at_us, job.created_at_us) * 1000, {})
        told |= {"umrgen.fence": self._claim.fence, "umrgen.attempt": job.attempts}
        told |= {"umrgen.model": job.model, "umrgen.steps": job.steps}
        run = self._tracer.begin("run", SpanKind.CONSUMER, to_wall(began), job.traceparent, told)
        for stage, end in self._list_ends(timings).items():
            span = self._tracer.begin(stage, SpanKind.INTERNAL, to_wall(end - timings[stage]), run.traceparent)
            span.end(to_wall(end), {})
        run.end(now_ns, {"umrgen.outcome": outcome}, failed=outcome in FAILURES)

    def _list_ends(self, timings: Mapping[str, float]) -> dict[str, float]:
        """When each stage was over. Those of the pipeline are known by how long they took, and by when it was done."""
        ends = {stage: end for stage, end in self._ended.items() if stage in timings}
        end = self._ended.get("paint", 0.0)
        for stage in reversed(IN_THE_PIPELINE):
            if stage in timings:
                ends[stage] = end
                end -= timings[stage]
        return ends
