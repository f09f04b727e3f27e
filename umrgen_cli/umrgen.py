"""`umrgen`: use an UMRGEN service from a shell."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from umrgen_cli.umrgen_follow import Follow, follow
from umrgen_cli.umrgen_options import (
    PATIENCE_S,
    AsJson,
    Cancel,
    JobId,
    JobState,
    Patience,
    Shell,
    Timeout,
    Url,
    check_picture,
    read_loras,
    read_size,
)
from umrgen_cli.umrgen_output import age, describe, session
from umrgen_client import JobStatus

EPILOG = (
    "The service's address is UMRGEN_URL or --url, the key UMRGEN_API_KEY; a key is never an argument, since other"
    " users of a machine can read those. Exit status: 0 done, 1 the job failed or was cancelled, 2 wrong usage, 3"
    " refused by the service, 4 unreachable, 5 not ended within --timeout, 130 interrupted."
)
COMPLETE_VARIABLE = "_UMRGEN_COMPLETE"

app = typer.Typer(
    name="umrgen",
    help=__doc__,
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,  # they would show the key among the locals
)


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help='what to paint; "-" reads it from stdin')],
    ref: Annotated[list[str] | None, typer.Option("--ref", metavar="FILE", help="reference: file, name or URL")] = None,
    size: Annotated[str | None, typer.Option(metavar="WxH", help="such as 1024x768")] = None,
    steps: Annotated[int | None, typer.Option(help="default: the model's")] = None,
    seed: Annotated[int | None, typer.Option(help="the same seed gives the same picture")] = None,
    negative: Annotated[str | None, typer.Option(help="what not to paint, where the model heeds it")] = None,
    model: Annotated[str | None, typer.Option(help="one of `umrgen models`")] = None,
    lora: Annotated[list[str] | None, typer.Option(metavar="NAME[:STRENGTH]", help="may be repeated")] = None,
    picture: Annotated[str | None, typer.Option("-o", "--output", help='default: JOB.png; "-" for stdout')] = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="submit, print the job, and end")] = False,
    timeout: Timeout = None,
    cancel_on_interrupt: Cancel = False,
    idempotency_key: Annotated[str | None, typer.Option(help="the same key never makes a second job")] = None,
    url: Url = None,
    patience: Patience = PATIENCE_S,
    as_json: AsJson = False,
) -> None:
    """Paint a picture: upload the references, submit, wait, save. After Ctrl-C the job goes on."""
    width, height = read_size(size)
    loras = read_loras(lora or [])
    check_picture(picture, as_json=as_json)
    with session(url, patience, as_json=as_json) as (client, output):
        job = client.generate(
            sys.stdin.read() if prompt == "-" else prompt,
            references=ref or [],
            width=width,
            height=height,
            steps=steps,
            seed=seed,
            negative=negative,
            model=model,
            loras=loras,
            idempotency_key=idempotency_key,
        )
        if job.ignored:
            output.note(f"ignored by the model or the service: {', '.join(job.ignored)}")
        if no_wait:
            output.emit(dict(job.raw), job.id)
            return
        follow(client, output, job, Follow(picture or f"{job.id}.png", timeout, cancel_on_interrupt))


@app.command()
def upload(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…")],
    url: Url = None,
    patience: Patience = PATIENCE_S,
    as_json: AsJson = False,
) -> None:
    """Keep pictures to generate with; prints the name of each, which --ref takes."""
    with session(url, patience, as_json=as_json) as (client, output):
        for path in files:
            reference = client.upload(path)
            output.emit(dict(reference.raw), reference.filename)


@app.command()
def status(job: JobId, url: Url = None, patience: Patience = PATIENCE_S, as_json: AsJson = False) -> None:
    """How a job stands."""
    with session(url, patience, as_json=as_json) as (client, output):
        found = client.status(job)
        output.emit(dict(found.raw), describe(found))


@app.command()
def wait(
    job: JobId,
    picture: Annotated[str | None, typer.Option("-o", "--output", help='save the picture; "-" for stdout')] = None,
    timeout: Timeout = None,
    cancel_on_interrupt: Cancel = False,
    url: Url = None,
    patience: Patience = PATIENCE_S,
    as_json: AsJson = False,
) -> None:
    """Wait for the end of a job."""
    check_picture(picture, as_json=as_json)
    with session(url, patience, as_json=as_json) as (client, output):
        follow(client, output, client.status(job), Follow(picture, timeout, cancel_on_interrupt))


@app.command()
def cancel(job: JobId, url: Url = None, patience: Patience = PATIENCE_S, as_json: AsJson = False) -> None:
    """Cancel a job; one that has ended stays as it is."""
    with session(url, patience, as_json=as_json) as (client, output):
        left = client.cancel(job)
        output.emit(dict(left.raw), describe(left))


@app.command("list")
def list_jobs(
    state: Annotated[JobState | None, typer.Option(help="only these")] = None,
    limit: Annotated[int, typer.Option(min=1, help="so many at most")] = 20,
    url: Url = None,
    patience: Patience = PATIENCE_S,
    as_json: AsJson = False,
) -> None:
    """Your jobs, newest first."""
    with session(url, patience, as_json=as_json) as (client, output):
        jobs: list[JobStatus] = []
        cursor: str | None = None
        while len(jobs) < limit:
            page = client.list(state, min(limit - len(jobs), 100), cursor)
            jobs += page.jobs
            cursor = page.next_cursor
            if cursor is None:
                break
        rows: list[tuple[str, ...]] = [(job.id, job.state, age(job.created_at), job.prompt[:50]) for job in jobs]
        output.emit_table([dict(job.raw) for job in jobs], ("job", "state", "age", "prompt"), rows)


@app.command()
def models(url: Url = None, patience: Patience = PATIENCE_S, as_json: AsJson = False) -> None:
    """What --model may name, and what each takes."""
    with session(url, patience, as_json=as_json) as (client, output):
        found = client.models()
        rows: list[tuple[str, ...]] = [
            (
                f"{model.name}{' (default)' if model.default else ''}",
                f"{model.steps.min}-{model.steps.max} ({model.steps.default})",
                f"{model.references.min}-{model.references.max}",
                f"{model.max_pixels / 1e6:.1f} Mpx",
                ", ".join(model.loras) or "-",
            )
            for model in found
        ]
        columns = ("model", "steps (default)", "references", "at most", "LoRAs")
        output.emit_table([dict(model.raw) for model in found], columns, rows)


@app.command()
def me(url: Url = None, patience: Patience = PATIENCE_S, as_json: AsJson = False) -> None:
    """Whose key it is, its limits and what of them is used."""
    with session(url, patience, as_json=as_json) as (client, output):
        found = client.me()
        limits = ", ".join(f"{name} {found.usage.get(name, '-')}/{limit}" for name, limit in found.limits.items())
        lines = [
            f"{found.agent} ({', '.join(found.scopes)})",
            f"used/limit: {limits}",
            *map(describe, found.current_jobs),
        ]
        output.emit(dict(found.raw), "\n".join(lines))


@app.command()
def completion(shell: Annotated[Shell, typer.Argument()]) -> None:
    """Print what completes `umrgen` in a shell: eval "$(umrgen completion bash)"."""
    os.environ[COMPLETE_VARIABLE] = f"source_{shell}"
    app(prog_name="umrgen")


def main() -> None:
    """Entry of the console script."""
    app(prog_name="umrgen")


if __name__ == "__main__":
    main()
