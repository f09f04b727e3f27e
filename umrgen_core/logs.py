"""One JSON line for each event, on stderr and in a rotating file below the data directory.

On a terminal stderr gets a readable form. Never prompts, keys or file URLs at INFO.
"""

from __future__ import annotations

import asyncio
import logging
import logging.handlers
import sys
from pathlib import Path
from typing import Any

import structlog

from umrgen_core.sections import LogSettings

_SHARED: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def log_path(data_dir: Path, process: str) -> Path:
    """Where `process` (such as "umrgen-api") keeps its log."""
    return data_dir / "log" / f"{process}.log"


def set_up_logs(settings: LogSettings, data_dir: Path, process: str) -> None:
    """Send structlog's events, and the standard library's warnings, to stderr and to the file."""
    readable = sys.stderr.isatty()
    handlers: list[logging.Handler] = [_stream_handler(readable)]
    if settings.file_bytes:
        path = log_path(data_dir, process)
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handlers.append(
            logging.handlers.RotatingFileHandler(
                path, maxBytes=settings.file_bytes, backupCount=settings.files - 1, delay=True, encoding="utf-8"
            )
        )
        handlers[-1].setFormatter(_formatter(structlog.processors.JSONRenderer()))
    root = logging.getLogger()
    root.handlers[:] = handlers
    root.setLevel(logging.WARNING)
    logging.getLogger("umrgen").setLevel(settings.level.upper())
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_SHARED,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def get_logger(name: str) -> Any:
    """A logger of this project."""
    return structlog.get_logger(f"umrgen.{name}")


def log_death(task: asyncio.Task[Any]) -> None:
    """Done-callback of a task that should never end by itself: an error in it is a bug, and must be seen."""
    if not task.cancelled() and (error := task.exception()) is not None:
        get_logger("tasks").error("task_died", task=task.get_coro().__qualname__, exc_info=error)  # type: ignore[union-attr]


def _stream_handler(readable: bool) -> logging.Handler:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        _formatter(structlog.dev.ConsoleRenderer() if readable else structlog.processors.JSONRenderer())
    )
    return handler


def _formatter(renderer: Any) -> logging.Formatter:
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_SHARED,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            renderer,
        ],
    )
