"""Rows become values here and nowhere else."""

from __future__ import annotations

import json
from dataclasses import fields

from umrgen_core.jobs import Job, JobState, Output, Pin, Reference
from umrgen_core.sqlite import Row

_REFERENCE_COLUMNS = tuple(field.name for field in fields(Reference))
_PIN_COLUMNS = tuple(field.name for field in fields(Pin))
_OUTPUT_COLUMNS = tuple(field.name for field in fields(Output))


def to_job(row: Row) -> Job:
    """A row of `get_job`."""
    return Job(
        seq=row["seq"],
        id=row["id"],
        agent_id=row["agent_id"],
        state=JobState(row["state"]),
        model=row["model"],
        prompt=row["prompt"],
        negative=row["negative"],
        width=row["width"],
        height=row["height"],
        steps=row["steps"],
        seed=row["seed"],
        reference_names=tuple(json.loads(row["reference_names"])),
        loras=tuple((choice["name"], choice["strength"]) for choice in json.loads(row["loras"])),
        ignored=tuple(json.loads(row["ignored"])),
        request_id=row["request_id"],
        created_at_us=row["created_at_us"],
        started_at_us=row["started_at_us"],
        finished_at_us=row["finished_at_us"],
        expires_at_us=row["expires_at_us"],
        attempts=row["attempts"],
        fence=row["fence"],
        worker_id=row["worker_id"],
        cancel_requested_at_us=row["cancel_requested_at_us"],
        step=row["step"],
        timings=None if row["timings"] is None else json.loads(row["timings"]),
        ran_with=None if row["ran_with"] is None else json.loads(row["ran_with"]),
        error_code=row["error_code"],
        error=row["error"],
        retryable=None if row["retryable"] is None else bool(row["retryable"]),
        output=None if row["output_id"] is None else _joined_output(row),
        callback_url=row["callback_url"],
        traceparent=row["traceparent"],
    )


def _joined_output(row: Row) -> Output:
    return Output(
        id=row["output_id"],
        agent_id=row["agent_id"],
        session_id=row["session_id"],
        filename=row["output_filename"],
        disk_name=row["output_disk_name"],
        width=row["output_width"],
        height=row["output_height"],
        bytes=row["output_bytes"],
        sha256=row["output_sha256"],
        expires_at_us=row["output_expires_at_us"],
    )


def to_output(row: Row) -> Output:
    """A row of `find_output`."""
    return Output(**{name: row[name] for name in _OUTPUT_COLUMNS})


def to_reference(row: Row) -> Reference:
    """A row of `find_reference` and its kin."""
    return Reference(**{name: row[name] for name in _REFERENCE_COLUMNS})


def to_pin(row: Row) -> Pin:
    """A row of `list_pins`."""
    return Pin(**{name: row[name] for name in _PIN_COLUMNS})
