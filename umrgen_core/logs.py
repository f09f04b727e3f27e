"""One JSON line for each event, on stderr and in a rotating file below the data directory.

On a terminal stderr gets a readable form. Never prompts, keys or file URLs at INFO.

A line is made once and written to both places before the call returns: a killed process has lost none that it
logged. One that a place does not take (a full disk, a closed pipe) is missing there alone, and whoever logged it
goes on.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

import structlog

from umrgen_core.rotating_file import RotatingFile
from umrgen_core.sections import LogSettings

_ENRICH: tuple[Any, ...] = (
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
)
_ENCODER = json.JSONEncoder(default=repr)
"""json.dumps with a default of ours would make one for each line. ASCII only, so that no value drives a terminal."""


def log_path(data_dir: Path, process: str) -> Path:
    """Where `process` (such as "umrgen-api") keeps its log."""
    return data_dir / "log" / f"{process}.log"


def set_up_logs(settings: LogSettings, data_dir: Path, process: str) -> None:
    """Send structlog's events, and the standard library's warnings, to stderr and to the file."""
    outlet = _Outlet(sys.stderr, _make_file(settings, data_dir, process))
    root = logging.getLogger()
    root.handlers[:] = [_Foreign(outlet)]
    root.setLevel(logging.WARNING)
    structlog.configure(
        processors=_ENRICH,
        wrapper_class=structlog.make_filtering_bound_logger(settings.level),
        logger_factory=lambda *_: outlet,
        cache_logger_on_first_use=True,
    )


def get_logger(name: str) -> Any:
    """A logger of this project."""
    return structlog.get_logger(f"umrgen.{name}")


def log_death(task: asyncio.Task[Any]) -> None:
    """Done-callback of a task that should never end by itself: an error in it is a bug, and must be seen."""
    if not task.cancelled() and (error := task.exception()) is not None:
        get_logger("tasks").error("task_died", task=task.get_coro().__qualname__, exc_info=error)  # type: ignore[union-attr]


class _Outlet:
    """Where structlog's chain ends: takes an event as keywords and writes it."""

    def __init__(self, stream: TextIO, file: RotatingFile | None) -> None:
        self._stream = stream
        self._file = file
        self._readable = structlog.dev.ConsoleRenderer() if stream.isatty() else None

    def write(self, **event: Any) -> None:
        line = _ENCODER.encode(event) + "\n"
        shown = line if self._readable is None else str(self._readable(None, "", event)) + "\n"
        with suppress(OSError, ValueError):  # ValueError: it is closed
            self._stream.write(shown)
            self._stream.flush()
        if self._file is not None:
            with suppress(OSError):
                self._file.write(line.encode())

    debug = info = warning = error = critical = write


class _Foreign(logging.Handler):
    """The standard library's records as events, enriched like ours."""

    def __init__(self, outlet: _Outlet) -> None:
        super().__init__()
        self._outlet = outlet

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except (TypeError, ValueError):  # its arguments do not fit its format
            self.handleError(record)
            return
        event: Any = {"event": message, "exc_info": record.exc_info}
        for enrich in _ENRICH:
            event = enrich(None, record.levelname.lower(), event)
        self._outlet.write(**event)


def _make_file(settings: LogSettings, data_dir: Path, process: str) -> RotatingFile | None:
    if not settings.file_bytes:
        return None
    path = log_path(data_dir, process)
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return RotatingFile(path, settings.file_bytes, settings.files)
