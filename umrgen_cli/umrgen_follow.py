"""Follow a job to its end: a progress bar with the time left, Ctrl-C, and the picture."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from umrgen_cli.umrgen_output import Exit, Output, describe, write_stdout
from umrgen_client import Client, Job

if TYPE_CHECKING:
    from collections.abc import Iterator

STDOUT = "-"


@dataclass(frozen=True, slots=True)
class Follow:
    """How to wait: where the picture goes (None: nowhere, "-": stdout), how long, and what Ctrl-C does."""

    picture: str | None = None
    timeout_s: float | None = None
    cancel_on_interrupt: bool = False


def follow(client: Client, output: Output, job: Job, how: Follow) -> None:
    """Wait for `job`, keep its picture, and say so. Raises UmrgenError as Client.wait does."""
    try:
        with _progress(output) as on_progress:
            job = client.wait(job.id, how.timeout_s, on_progress)
    except KeyboardInterrupt:
        _interrupt(client, output, job, how)
        raise typer.Exit(Exit.INTERRUPTED) from None
    if how.picture is None:
        output.emit(dict(job.raw), describe(job))
        return
    picture = client.fetch(job)
    if how.picture == STDOUT:
        write_stdout(picture.data)
        return
    path = picture.save(how.picture)
    output.emit({**job.raw, "saved": str(path)}, f"{path}  {job.width}x{job.height}  seed {job.seed}")


def _interrupt(client: Client, output: Output, job: Job, how: Follow) -> None:
    """The first Ctrl-C ends the waiting; the job only where that was asked for."""
    if how.cancel_on_interrupt:
        job = client.cancel(job.id)
        output.note(f"\njob {job.id}: {'to be cancelled' if not job.ended else job.state}")
    else:
        output.note(f"\nThe job goes on. To get its picture: umrgen wait {job.id} -o FILE")
    if output.as_json:
        output.emit({**job.raw, "interrupted": True}, "")


@contextmanager
def _progress(output: Output) -> Iterator[Callable[[Job], None] | None]:
    """A bar on stderr where somebody watches; None where nobody does."""
    if not output.live:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[left]}"), TimeElapsedColumn())
    with Progress(*columns, console=output.stderr, transient=True) as progress:
        bar = progress.add_task("queued", total=None, left="")

        def show(job: Job) -> None:
            step = job.steps if job.state == "completed" else job.progress.step if job.progress else 0
            place = f" (place {job.queue_position})" if job.queue_position else ""
            left = "" if job.eta_s is None else f"about {job.eta_s:.0f} s left"
            total = job.steps if job.state != "queued" else None
            progress.update(bar, description=f"{job.state}{place}", total=total, completed=step, left=left)

        yield show
