"""What `umrgen-admin queue status` shows, for people and for scripts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from rich.table import Table

from umrgen_cli.admin_command import print_table, show_age, show_time
from umrgen_cli.figures import show_span
from umrgen_core.clock import format_time
from umrgen_core.overview import Overview
from umrgen_core.queue_control import AgentQueue


def describe_state(overview: Overview) -> str:
    """One sentence: whether jobs are run and accepted, and since when not."""
    paused, draining, now_us = overview.paused_at_us, overview.draining_at_us, overview.at_us
    if paused is not None and draining is not None:
        return (
            f"the queue is shut: paused since {_since(paused, now_us)}, draining since {_since(draining, now_us)};"
            " nothing is run and nothing is accepted."
        )
    if paused is not None:
        return f"the queue is paused since {_since(paused, now_us)}: jobs are accepted and wait."
    if draining is not None:
        return f"the queue drains since {_since(draining, now_us)}: nothing new is accepted, what waits is run."
    return "the queue is open: jobs are accepted and run."


def _since(us: int, now_us: int) -> str:
    return f"{show_time(us)} (for {show_age(us, now_us)})"


def render_status(overview: Overview, agents: Sequence[AgentQueue]) -> dict[str, object]:
    """The status as a JSON object, times in RFC 3339."""
    return {
        "paused_at": None if overview.paused_at_us is None else format_time(overview.paused_at_us),
        "draining_at": None if overview.draining_at_us is None else format_time(overview.draining_at_us),
        "queued": overview.queued,
        "models": [_with_times(asdict(line)) for line in overview.queue],
        "agents": [_with_times(asdict(line)) for line in agents],
        "running": [_with_times(asdict(line)) for line in overview.running],
        "workers": [_with_times(asdict(line)) for line in overview.workers],
    }


def _with_times(values: dict[str, object]) -> dict[str, object]:
    return {
        name.removesuffix("_us"): format_time(value) if name.endswith("_at_us") and isinstance(value, int) else value
        for name, value in values.items()
    }


def show_status(overview: Overview, agents: Sequence[AgentQueue]) -> None:
    """The status as tables; one that would be empty is a sentence."""
    print(describe_state(overview))
    now_us = overview.at_us
    if overview.queue:
        table = Table("model", "waiting", "agents", "oldest", "for", title="by model", title_justify="left")
        for line in overview.queue:
            table.add_row(
                line.model, str(line.jobs), str(line.agents), line.oldest_id, show_age(line.oldest_at_us, now_us)
            )
        print_table(table)
        table = Table("agent", "waiting", "oldest", "for", title="by agent", title_justify="left")
        for agent in agents:
            table.add_row(agent.agent, str(agent.jobs), agent.oldest_id, show_age(agent.oldest_at_us, now_us))
        print_table(table)
    else:
        print("nothing waits")
    _show_running(overview)
    _show_workers(overview)


def _show_running(overview: Overview) -> None:
    if not overview.running:
        print("nothing runs")
        return
    table = Table(
        "job", "agent", "model", "step", "for", "attempt", "worker", "note", title="running", title_justify="left"
    )
    for line in overview.running:
        told = "cancel asked for" if line.cancel_requested else ""
        late = "" if line.lease_left_s is not None and line.lease_left_s >= 0 else "lease is over"
        table.add_row(
            line.id,
            line.agent,
            line.model,
            f"{line.step}/{line.steps}",
            show_age(line.started_at_us, overview.at_us),
            str(line.attempts),
            line.worker_id,
            late or told,
        )
    print_table(table)


def _show_workers(overview: Overview) -> None:
    if not overview.workers:
        print("no worker: start umrgen-infer")
        return
    table = Table("worker", "pid", "state", "models", "up", "last seen", title="workers", title_justify="left")
    for worker in overview.workers:
        seen = "in another boot" if worker.age_s is None else f"{show_span(worker.age_s)} ago"
        up = show_age(worker.started_at_us, overview.at_us)
        table.add_row(worker.id, str(worker.pid), worker.state.value, ", ".join(worker.models) or "-", up, seen)
    print_table(table)
