"""Options of `umrgen` and how their texts are read."""

from __future__ import annotations

import os
import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from umrgen_cli.umrgen_follow import STDOUT

PATIENCE_S = 60.0
Url = Annotated[str | None, typer.Option("--url", metavar="URL", help="the service; default: UMRGEN_URL")]
AsJson = Annotated[bool, typer.Option("--json", help="one JSON object a line on stdout, and nothing else")]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="job_id, ext_…")]
Patience = Annotated[float, typer.Option(min=0, help="seconds to try again while the service is busy or away")]
Timeout = Annotated[float | None, typer.Option("--timeout", min=0, help="seconds to wait at most; the job goes on")]
Cancel = Annotated[bool, typer.Option("--cancel-on-interrupt", help="Ctrl-C also cancels the job")]


class JobState(StrEnum):
    """The states of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Shell(StrEnum):
    """Shells that can complete `umrgen`."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def read_size(text: str | None) -> tuple[int | None, int | None]:
    """`1024x768` as width and height. Raises BadParameter."""
    if text is None:
        return None, None
    found = re.fullmatch(r"(\d{1,5})[x×](\d{1,5})", text)  # noqa: RUF001 - as people write it
    if found is None:
        raise typer.BadParameter("write WIDTHxHEIGHT, such as 1024x768", param_hint="--size")
    return int(found[1]), int(found[2])


def read_loras(texts: list[str]) -> dict[str, float]:
    """`name` and `name:0.5` as names with strengths. Raises BadParameter."""
    loras: dict[str, float] = {}
    for text in texts:
        name, colon, strength = text.rpartition(":")
        try:
            loras[name if colon else text] = float(strength) if colon else 1.0
        except ValueError:
            raise typer.BadParameter("write NAME or NAME:STRENGTH, such as sketch:0.5", param_hint="--lora") from None
    return loras


def check_picture(picture: str | None, *, as_json: bool) -> None:
    """Refuse a place that cannot take the picture before anything is painted. Raises BadParameter."""
    if picture == STDOUT and as_json:
        raise typer.BadParameter("stdout is taken by --json; name a file", param_hint="-o")
    if picture is None or picture == STDOUT:
        return
    path = Path(picture)
    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise typer.BadParameter(f"{picture} cannot be written", param_hint="-o")
