"""Names that must not be guessed, and where ids come from."""

from __future__ import annotations

import os
import secrets
import uuid

SECRET_DIGITS = 24
"""Random digits in a public file name: the name is the secret of its URL."""

JOB_PREFIX = "ext_"


def new_process_id() -> str:
    """Names one run of one process among all that ever opened the store."""
    return f"{os.getpid()}-{uuid.uuid4().hex[:8]}"


def new_job_id() -> str:
    """`ext_` and a random UUID."""
    return f"{JOB_PREFIX}{uuid.uuid4()}"


def new_reference_filename(wall_us: int, extension: str) -> str:
    """Public name of an upload: epoch milliseconds, then the secret digits."""
    return f"image_{wall_us // 1000}{_digits()}.{extension}"


def new_output_filename() -> str:
    """Public name of a picture."""
    return f"umrgen_{_digits()}.png"


def new_disk_name(extension: str) -> str:
    """Name of a file on disk; random, never made from content or request."""
    return f"{uuid.uuid4()}.{extension}"


def output_disk_name(job_id: str, fence: int) -> str:
    """Name of a picture on disk: a worker that slept through its lease cannot touch its successor's."""
    return f"{job_id.removeprefix(JOB_PREFIX)}.{fence}.png"


def parse_output_name(disk_name: str) -> tuple[str, int] | None:
    """Job id and fence that `output_disk_name` was given; None for any other name."""
    parts = disk_name.split(".")
    if len(parts) != 3 or parts[2] != "png" or not (parts[1].isascii() and parts[1].isdigit()):
        return None
    return JOB_PREFIX + parts[0], int(parts[1])


def _digits() -> str:
    return f"{secrets.randbelow(10**SECRET_DIGITS):0{SECRET_DIGITS}d}"
