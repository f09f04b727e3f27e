"""Jobs as the owner of the box sees them: of every agent, and without prompts unless they are asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from umrgen_core.clock import format_time
from umrgen_core.jobs import Job, JobState, Pin
from umrgen_core.sqlite import Row


@dataclass(frozen=True, slots=True)
class JobLine:
    """One job in a list. There is no prompt in it."""

    id: str
    agent: str
    state: JobState
    model: str
    width: int
    height: int
    step: int
    steps: int
    references: int
    created_at_us: int
    started_at_us: int | None
    finished_at_us: int | None
    attempts: int
    worker_id: str | None
    error_code: str | None
    cancel_requested: bool

    def as_json(self) -> dict[str, object]:
        """The line as a JSON object, times in RFC 3339."""
        values = {name: value for name, value in asdict(self).items() if not name.endswith("_at_us")}
        return values | _render_times(self, ("created", "started", "finished"))


@dataclass(frozen=True, slots=True)
class JobPage:
    """Jobs, newest first. `next_before` continues behind the last; None where nothing follows.

    `looked_at` is set when only that many of the newest jobs were looked at and there may be older ones.
    """

    lines: tuple[JobLine, ...]
    next_before: int | None
    looked_at: int | None


@dataclass(frozen=True, slots=True)
class WebhookLine:
    """What became of telling the agent."""

    state: str
    attempts: int
    outcome: str | None


@dataclass(frozen=True, slots=True)
class JobRecord:
    """Everything that is known of a job. `job` holds the prompt; `as_json` tells it only when asked to."""

    job: Job
    agent: str
    device_losses: int
    lease_left_s: float | None
    """Of a running job, in this boot; negative once the worker is overdue."""
    pins: tuple[Pin, ...]
    events: tuple[tuple[int, str], ...]
    """Ids and kinds, the oldest first. They have no times of their own."""
    webhook: WebhookLine | None
    output_path: Path | None
    output_exists: bool

    def as_json(self, *, with_prompt: bool) -> dict[str, object]:
        """The record as a JSON object. Prompts and the callback's whole URL belong to the agent: only `with_prompt`."""
        job = self.job
        return {
            "job_id": job.id,
            "agent": self.agent,
            "state": job.state.value,
            "request": self._render_request(with_prompt=with_prompt),
            "request_id": job.request_id,
            "traceparent": job.traceparent,
            **_render_times(job, ("created", "started", "finished", "expires", "cancel_requested")),
            "attempts": job.attempts,
            "fence": job.fence,
            "device_losses": self.device_losses,
            "worker_id": job.worker_id,
            "lease_left_s": self.lease_left_s,
            "step": job.step,
            "timings": None if job.timings is None else dict(job.timings),
            "ran_with": None if job.ran_with is None else dict(job.ran_with),
            "error": None if job.error_code is None else _render_error(job),
            "output": self._render_output(),
            "pins": [asdict(pin) for pin in self.pins],
            "webhook": None if self.webhook is None else asdict(self.webhook),
            "events": [{"id": event_id, "kind": kind} for event_id, kind in self.events],
        }

    def _render_request(self, *, with_prompt: bool) -> dict[str, object]:
        job = self.job
        told = {"prompt": job.prompt, "negative": job.negative} if with_prompt else {}
        host = None if job.callback_url is None else urlsplit(job.callback_url).hostname
        return {
            **told,
            "model": job.model,
            "width": job.width,
            "height": job.height,
            "steps": job.steps,
            "seed": job.seed,
            "references": list(job.reference_names),
            "loras": dict(job.loras),
            "ignored": list(job.ignored),
            "callback": job.callback_url if with_prompt else host,
        }

    def _render_output(self) -> dict[str, object] | None:
        output = self.job.output
        if output is None:
            return None
        return {
            "filename": output.filename,
            "path": str(self.output_path),
            "exists": self.output_exists,
            "width": output.width,
            "height": output.height,
            "bytes": output.bytes,
            "sha256": output.sha256,
        }


def to_line(row: Row) -> JobLine:
    """A row of `operator_jobs` and its kin."""
    given = {"state", "references", "cancel_requested"}
    values = {name: row[name] for name in JobLine.__dataclass_fields__ if name not in given}
    return JobLine(
        **values,
        state=JobState(row["state"]),
        references=len(json.loads(row["reference_names"])),
        cancel_requested=row["cancel_requested_at_us"] is not None,
    )


def _render_error(job: Job) -> Mapping[str, object]:
    return {"code": job.error_code, "message": job.error, "retryable": job.retryable}


def _render_times(source: object, names: tuple[str, ...]) -> dict[str, object]:
    found = {f"{name}_at": getattr(source, f"{name}_at_us") for name in names}
    return {name: None if us is None else format_time(us) for name, us in found.items()}
