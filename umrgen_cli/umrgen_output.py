"""What `umrgen` prints, for people or for scripts, and the status that it ends with."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from umrgen_client import (
    BadAnswer,
    Client,
    InvalidRequest,
    JobCancelled,
    JobFailed,
    JobStatus,
    NotConfigured,
    Retry,
    UmrgenError,
    Unreachable,
    WaitTimeout,
)


class Exit(IntEnum):
    """Exit statuses of `umrgen`."""

    OK = 0
    JOB_FAILED = 1
    """The job failed or was cancelled."""
    USAGE = 2
    """The command line, the environment or a file named there is wrong; nothing was submitted."""
    REFUSED = 3
    """The service said no."""
    UNREACHABLE = 4
    """No answer, or not from an UMRGEN."""
    TIMEOUT = 5
    """The job has not ended within --timeout; it goes on."""
    INTERRUPTED = 130
    """Ctrl-C."""


def exit_of(error: UmrgenError) -> Exit:
    """The status that an error ends with."""
    if isinstance(error, JobFailed | JobCancelled):
        return Exit.JOB_FAILED
    if isinstance(error, NotConfigured):
        return Exit.USAGE
    if isinstance(error, Unreachable | BadAnswer):
        return Exit.UNREACHABLE
    return Exit.TIMEOUT if isinstance(error, WaitTimeout) else Exit.REFUSED


class Output:
    """Results on stdout, everything else on stderr; with `as_json` one JSON object a line on stdout and no more."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.stderr = Console(stderr=True, highlight=False)
        self._stdout = Console(highlight=False, soft_wrap=True)

    @property
    def live(self) -> bool:
        """Whether somebody watches."""
        return not self.as_json and self.stderr.is_terminal

    def emit(self, answer: Any, sentence: str) -> None:
        """One result: the object, or a sentence for people."""
        if self.as_json:
            print(json.dumps(answer, ensure_ascii=False), flush=True)
        else:
            self._stdout.print(sentence, markup=False)

    def emit_table(self, answers: list[Any], columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
        """Many results: an object a line, or a table."""
        if self.as_json:
            for answer in answers:
                self.emit(answer, "")
            return
        table = Table(*columns, box=None, pad_edge=False)
        for row in rows:
            table.add_row(*row)
        self._stdout.print(table, markup=False)

    def note(self, sentence: str) -> None:
        """Something that a person may want to know."""
        if not self.as_json:
            self.stderr.print(sentence, markup=False, soft_wrap=True)

    def fail(self, error: UmrgenError) -> None:
        """What went wrong and what to do."""
        if self.as_json:
            job = getattr(error, "job", None)
            self.emit({**(dict(job.raw) if isinstance(job, JobStatus) else {}), **error.as_json()}, "")
            return
        self.stderr.print(f"umrgen: {error.message}", markup=False, soft_wrap=True)
        if isinstance(error, InvalidRequest):
            for problem in error.fields:
                if problem.nearest is not None:
                    self.stderr.print(f"  {problem.field}: {problem.nearest} would work", markup=False, soft_wrap=True)


@contextmanager
def session(url: str | None, patience_s: float, *, as_json: bool) -> Iterator[tuple[Client, Output]]:
    """A client and an output; whatever goes wrong inside becomes a message and an exit status."""
    output = Output(as_json=as_json)
    try:
        retry = Retry(patience_s=patience_s, outage_s=min(patience_s, Retry().outage_s))
        with Client(url, retry=retry) as client:
            yield client, output
    except UmrgenError as error:
        output.fail(error)
        raise typer.Exit(exit_of(error)) from None
    except OSError as error:
        output.fail(UmrgenError("file_error", f"{error.filename or 'a file'}: {error.strerror or error}"))
        raise typer.Exit(Exit.USAGE) from None
    except KeyboardInterrupt:
        raise typer.Exit(Exit.INTERRUPTED) from None


def describe(job: JobStatus) -> str:
    """One line about a job."""
    parts = [job.id, job.state]
    if job.state == "queued" and job.queue_position is not None:
        parts.append(f"place {job.queue_position}")
    if job.state == "running" and job.progress is not None:
        parts.append(f"step {job.progress.step}/{job.progress.steps}")
    if not job.ended and job.eta_s is not None:
        parts.append(f"about {job.eta_s:.0f} s left")
    if job.state == "completed":
        parts.append(job.image_url or "")
    if job.state == "failed":
        parts.append(f"{job.error_code}: {job.error}")
    return "  ".join(parts)


def age(moment: datetime) -> str:
    """How long ago, for a table."""
    seconds = max(int((datetime.now(UTC) - moment).total_seconds()), 0)
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


def write_stdout(data: bytes) -> None:
    """A picture into a pipe."""
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
