"""Rows become values here and nowhere else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from umrgen_core.jobs import Job, JobState, Output, Pin, Reference
from umrgen_core.sqlite import Row

NONE = "[]"
"""What most jobs have for references, LoRAs and ignored fields."""
_REFERENCE_COLUMNS = tuple(field.name for field in fields(Reference))
_PIN_COLUMNS = tuple(field.name for field in fields(Pin))
_OUTPUT_COLUMNS = tuple(field.name for field in fields(Output))


def to_job(row: Row) -> Job:
    """A row of `get_job`."""
    # A Row finds a column by comparing its name with one after the other: twice the cost of all the rest of this.
    of = dict(zip(row.keys(), row, strict=True))
    return Job(
        seq=of["seq"],
        id=of["id"],
        agent_id=of["agent_id"],
        state=JobState(of["state"]),
        model=of["model"],
        prompt=of["prompt"],
        negative=of["negative"],
        width=of["width"],
        height=of["height"],
        steps=of["steps"],
        seed=of["seed"],
        reference_names=_read_names(of["reference_names"]),
        loras=_read_loras(of["loras"]),
        ignored=_read_names(of["ignored"]),
        request_id=of["request_id"],
        created_at_us=of["created_at_us"],
        started_at_us=of["started_at_us"],
        finished_at_us=of["finished_at_us"],
        expires_at_us=of["expires_at_us"],
        attempts=of["attempts"],
        fence=of["fence"],
        worker_id=of["worker_id"],
        cancel_requested_at_us=of["cancel_requested_at_us"],
        step=of["step"],
        timings=None if of["timings"] is None else json.loads(of["timings"]),
        ran_with=None if of["ran_with"] is None else json.loads(of["ran_with"]),
        error_code=of["error_code"],
        error=of["error"],
        retryable=None if of["retryable"] is None else bool(of["retryable"]),
        output=None if of["output_id"] is None else _joined_output(of),
        callback_url=of["callback_url"],
        traceparent=of["traceparent"],
    )


def _joined_output(of: Mapping[str, Any]) -> Output:
    return Output(
        id=of["output_id"],
        agent_id=of["agent_id"],
        session_id=of["session_id"],
        filename=of["output_filename"],
        disk_name=of["output_disk_name"],
        width=of["output_width"],
        height=of["output_height"],
        bytes=of["output_bytes"],
        sha256=of["output_sha256"],
        expires_at_us=of["output_expires_at_us"],
    )


def _read_names(text: str) -> tuple[str, ...]:
    return () if text == NONE else tuple(json.loads(text))


def _read_loras(text: str) -> tuple[tuple[str, float], ...]:
    return () if text == NONE else tuple((choice["name"], choice["strength"]) for choice in json.loads(text))


def to_output(row: Row) -> Output:
    """A row of `find_output`."""
    return Output(**{name: row[name] for name in _OUTPUT_COLUMNS})


def to_reference(row: Row) -> Reference:
    """A row of `find_reference` and its kin."""
    return Reference(**{name: row[name] for name in _REFERENCE_COLUMNS})


def to_pin(row: Row) -> Pin:
    """A row of `list_pins`."""
    return Pin(**{name: row[name] for name in _PIN_COLUMNS})
