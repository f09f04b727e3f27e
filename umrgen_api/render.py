"""Jobs and references as JSON."""

from __future__ import annotations

from umrgen_core.admission import render_progress
from umrgen_core.clock import format_time
from umrgen_core.job_store import QueuePlace, Standing
from umrgen_core.jobs import Job, JobState, Output, Reference
from umrgen_core.profiles import MAX_SIDE_PX, MIN_SIDE_PX, ModelProfile


def reference_url(reference: Reference) -> str:
    """Path of an upload, with the session that its reader must know."""
    return f"/references/{reference.session_id}/{reference.filename}?session_id={reference.session_id}"


def output_url(output: Output) -> str:
    """Path of a picture, with the session that its reader must know."""
    return f"/outputs/{output.session_id}/{output.filename}?session_id={output.session_id}"


def status_url(job_id: str) -> str:
    """Path of a job's status."""
    return f"/api/v1/status/{job_id}"


def render_reference(reference: Reference) -> dict[str, object]:
    """One upload: the stored file, and what it was made from."""
    return {
        "filename": reference.filename,
        "url": reference_url(reference),
        "width": reference.width,
        "height": reference.height,
        "bytes": reference.bytes,
        "sha256": reference.sha256,
        "original": {
            "width": reference.source_width,
            "height": reference.source_height,
            "bytes": reference.source_bytes,
            "format": reference.source_format,
        },
        "created_at": format_time(reference.created_at_us),
        "expires_at": format_time(reference.expires_at_us),
    }


def render_accepted(job: Job, position: int) -> dict[str, object]:
    """The 202 of a generate."""
    return {
        "success": True,
        "job_id": job.id,
        "message": "Job accepted and queued",
        "state": JobState.QUEUED.value,
        "queue_position": position,
        "status_url": status_url(job.id),
        "ignored": list(job.ignored),
    }


def render_status(standing: Standing) -> dict[str, object]:
    """The status of a job."""
    job, place = standing.job, standing.place
    status: dict[str, object] = {
        "success": True,
        "job_id": job.id,
        "state": job.state.value,
        "created_at": format_time(job.created_at_us),
        "attempts": job.attempts,
        "request_id": job.request_id,
        "prompt": job.prompt,
        "negative": job.negative,
        "width": job.width,
        "height": job.height,
        "steps": job.steps,
        "seed": job.seed,
        "reference_images": list(job.reference_names),
        "model": job.model,
        "loras": [{"name": name, "strength": strength} for name, strength in job.loras],
        "ignored": list(job.ignored),
        "callback_url": job.callback_url,
    }
    if job.state is JobState.QUEUED and place is not None:
        status |= _render_place(place)
    elif job.state is JobState.RUNNING:
        status |= _render_run(job, standing.rest_s)
    elif job.state is JobState.COMPLETED and job.output is not None:
        status |= _render_picture(job, job.output)
    elif job.state is JobState.FAILED:
        status |= {"error": job.error, "error_code": job.error_code, "retryable": job.retryable}
    if job.finished_at_us is not None and job.expires_at_us is not None:
        status |= {"finished_at": format_time(job.finished_at_us), "expires_at": format_time(job.expires_at_us)}
    return status


def _render_place(place: QueuePlace) -> dict[str, object]:
    rendered: dict[str, object] = {"queue_position": place.position, "eta_seconds": _rounded(place.eta_s)}
    return rendered | ({"queue_position_capped": True} if place.capped else {})


def _render_run(job: Job, eta_s: float | None) -> dict[str, object]:
    return {
        "progress": render_progress(job.step, job.steps),
        "started_at": format_time(job.started_at_us or job.created_at_us),
        "eta_seconds": _rounded(eta_s),
        "cancel_requested": job.cancel_requested_at_us is not None,
    }


def _render_picture(job: Job, output: Output) -> dict[str, object]:
    return {
        "image_url": output_url(output),
        "timings": dict(job.timings or {}),
        "ran_with": dict(job.ran_with or {}),
        "sha256": output.sha256,
        "bytes": output.bytes,
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 2)


def render_model(name: str, profile: ModelProfile, loras: list[str], *, default: bool) -> dict[str, object]:
    """A model and its limits. Nothing of where its weights lie."""
    return {
        "name": name,
        "default": default,
        "revision": profile.revision,
        "licence": profile.licence,
        "steps": {"default": profile.steps, "min": profile.min_steps, "max": profile.max_steps},
        "references": {"min": profile.min_references, "max": profile.references},
        "size": {
            "min_side": MIN_SIDE_PX,
            "max_side": MAX_SIDE_PX,
            "max_pixels": profile.max_area_px,
            "native_side": profile.native_px,
        },
        "negative": profile.negative,
        "loras": {"max": profile.loras, "names": loras if profile.loras else []},
    }
