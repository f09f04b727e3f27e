"""Whether agents can get in, and whether what they ask for is done."""

from __future__ import annotations

from collections.abc import Iterator

from umrgen_cli.doctor.findings import MISSED_HEARTBEATS, Finding, Patient, good, problem, warning
from umrgen_cli.figures import show_span
from umrgen_core.jobs import JobState
from umrgen_core.overview import MOST_COUNTED, Overview
from umrgen_core.sqlite import Row, open_untouched
from umrgen_core.statements import load_statements
from umrgen_core.worker_store import WorkerState

LONG_WAIT_S = 900.0
RECOVERY_S = 10.0
NEARLY = 0.9
FEW_FAILURES = 5
SOON_US = 7 * 86_400 * 1_000_000
MOST_NAMED = 5


def check_keys(patient: Patient) -> Iterator[Finding]:
    """Somebody can get in, and no key runs out unnoticed."""
    if patient.overview is None:
        return
    now_us = patient.overview.at_us
    agents, keys = _read_accounts(patient, now_us)
    locked_out = [row["name"] for row in agents if not row["live_keys"] and row["name"] != "development"]
    live = [row for row in keys if row["revoked_at_us"] is None]
    ending = [row for row in live if row["expires_at_us"] and now_us < row["expires_at_us"] < now_us + SOON_US]
    if not any(row["live_keys"] for row in agents):
        yield problem("keys", "no agent has a key that is good", "run: umrgen-admin agents create NAME")
    else:
        count = sum(row["live_keys"] for row in agents)
        yield good("keys", f"{count} good, of {len(agents)} agents")
    if locked_out:
        advice = "run 'umrgen-admin keys create NAME' for those who should get in"
        yield warning("agents", f"without a good key: {', '.join(locked_out[:MOST_NAMED])}", advice)
    for row in ending[:MOST_NAMED]:
        left = show_span((row["expires_at_us"] - now_us) / 1e6)
        seen = f"key {row['id']} of {row['agent_name']} ends in {left}"
        yield warning("keys", seen, f"run: umrgen-admin keys rotate {row['id']}")


def _read_accounts(patient: Patient, now_us: int) -> tuple[list[Row], list[Row]]:
    statements = load_statements()
    connection = open_untouched(patient.settings.storage.database)
    try:
        agents = connection.execute(statements.list_agents.sql, {"now_us": now_us}).fetchall()
        return agents, connection.execute(statements.list_keys.sql).fetchall()
    finally:
        connection.close()


def check_queue(patient: Patient) -> Iterator[Finding]:
    """Open, moving, and not nearly full."""
    view = patient.overview
    if view is None:
        return
    for since_us, word, what in (
        (view.paused_at_us, "paused", "jobs wait"),
        (view.draining_at_us, "draining", "nothing new is accepted"),
    ):
        if since_us is not None:
            since = show_span((view.at_us - since_us) / 1e6)
            yield warning("queue", f"{word} for {since}: {what}", "run: umrgen-admin queue resume")
    most = patient.settings.limits.queued_jobs
    if view.queued >= NEARLY * min(most, MOST_COUNTED):
        advice = "more GPUs, fewer steps, or lower [limits] concurrent_jobs; at the limit agents are answered 503"
        yield warning("queue", f"{view.queued} of at most {most} jobs wait", advice)
    stuck = list(_find_stuck(patient, view))
    yield from stuck
    if not stuck and view.paused_at_us is None:
        yield good("queue", f"{view.queued} jobs wait, {len(view.running)} run")


def _find_stuck(patient: Patient, view: Overview) -> Iterator[Finding]:
    silent_s = MISSED_HEARTBEATS * patient.settings.jobs.heartbeat_s
    ready = {
        model
        for worker in view.workers
        if worker.state is WorkerState.READY and worker.is_heard(silent_s)
        for model in worker.models
    }
    for line in view.queue:
        age_s = (view.at_us - line.oldest_at_us) / 1e6
        if line.model not in ready and patient.is_loading:
            yield warning("queue", f"{line.jobs} jobs wait for {line.model}", "wait: a worker is loading its model")
        elif line.model not in ready:
            seen = f"{line.jobs} jobs wait for {line.model}, which no worker is ready for"
            yield problem("queue", seen, "start a daemon that serves it, or cancel them: umrgen-admin jobs list")
        elif age_s > LONG_WAIT_S and view.paused_at_us is None:
            seen = f"{line.oldest_id} has waited {show_span(age_s)} for {line.model}, though a worker is ready"
            yield warning(
                "queue", seen, "'umrgen-admin top' shows whether it moves; if it does not, see the daemon's log"
            )
    gone = [job for job in view.running if job.lease_left_s is None or job.lease_left_s < -RECOVERY_S]
    if gone:
        jobs = f"{len(gone)} job{' is' if len(gone) == 1 else 's are'}"
        seen = f"{jobs} held by a worker that is gone, such as {gone[0].id} by {gone[0].worker_id}"
        yield problem("lease", seen, "start either process: it puts them back into the queue within a second")


def check_outcomes(patient: Patient) -> Iterator[Finding]:
    """Whether jobs end well, and agents are told."""
    view = patient.overview
    if view is None:
        return
    ended = [line for line in view.finished if line.state is not JobState.CANCELLED]
    failed = [line for line in ended if line.state is JobState.FAILED]
    if len(failed) >= FEW_FAILURES and len(failed) * 2 > len(ended):
        codes = ", ".join(sorted({str(line.error_code) for line in failed}))
        advice = "'umrgen-admin jobs show ID' has the reason of each, docs/http.md what the codes mean"
        yield problem("outcomes", f"{len(failed)} of the last {len(ended)} jobs failed ({codes})", advice)
    elif ended:
        yield good("outcomes", f"{len(ended) - len(failed)} of the last {len(ended)} jobs ended well")
    if view.webhooks_failed:
        advice = "see why: umrgen-admin webhooks list --state failed; then: umrgen-admin webhooks replay --failed"
        yield warning("webhooks", f"{view.webhooks_failed} were given up", advice)
    else:
        yield good("webhooks", f"{view.webhooks_due} to be sent, none given up")
