"""The two processes: there, answering, heard from, and without errors in their logs."""

from __future__ import annotations

import http.client
import json
import os
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from umrgen_cli.doctor.findings import MISSED_HEARTBEATS, Finding, Patient, good, problem, warning
from umrgen_cli.figures import show_span
from umrgen_core.footprint import list_processes
from umrgen_core.overview import WorkerLine
from umrgen_core.worker_store import WorkerState

LONG_LOADING_S = 900.0
TAIL_BYTES = 512 << 10
NAMES = {"api": "web tier", "infer": "daemon"}
START = "start it: 'systemctl start {unit}', or 'make run' from a checkout; its log says why it ended"
UNITS = {"api": "umrgen-api", "infer": "umrgen-infer@0"}
BAD = ("error", "critical")


def check_living(patient: Patient) -> Iterator[Finding]:
    """Both have the store open."""
    living = list_processes(patient.settings.storage.data_dir)
    for kind, name in NAMES.items():
        own = [process for process in living if process.kind == kind]
        if not own:
            yield problem(name, "does not run", START.format(unit=UNITS[kind]))
        for process in own:
            age_s = (patient.clock.wall_us() - process.started_at_us) / 1e6
            yield good(name, f"process {process.pid}, up for {show_span(age_s)}")


def check_web_tier(patient: Patient) -> Iterator[Finding]:
    """It answers where it is said to listen, and would run jobs."""
    address = patient.addresses[0]
    if not patient.listening and address.port == 0:
        yield warning("address", "port 0: it listens on another port at each start", "set [api] port")
        return
    try:
        status, _ = address.ask("/healthz")
        ready, body = address.ask("/readyz")
        reasons = body.get("reasons", []) if isinstance(body, dict) else None
    except (OSError, http.client.HTTPException) as error:
        if any(process.kind == "api" for process in list_processes(patient.settings.storage.data_dir)):
            advice = "it runs, so it hangs or fails: its log says why; start it again: 'systemctl restart umrgen-api'"
            yield problem("healthz", f"no answer on {address} ({error})", advice)
        return
    if reasons is None or status != http.client.OK:
        advice = "see with 'ss -ltnp' whether another program has the port, or set another [api] port"
        yield problem("healthz", f"{address} was answered {status}, not as UMRGEN answers", advice)
        return
    yield good("healthz", f"{address} answers")
    if ready == http.client.OK:
        yield good("readyz", "ready: what is posted is painted")
        return
    seen = f"not ready: {', '.join(map(str, reasons)) or ready}"
    if patient.is_loading:
        yield warning("readyz", seen, "wait: a large model takes minutes to load")
    else:
        yield problem("readyz", seen, "see what is said of it below and above")


def check_workers(patient: Patient) -> Iterator[Finding]:
    """Each is heard from, and every model that is served has a worker that paints with it."""
    if patient.overview is None:
        return
    silent_s = patient.settings.jobs.heartbeat_s * MISSED_HEARTBEATS
    heard: list[WorkerLine] = []
    for worker in patient.overview.workers:
        if not worker.is_heard(silent_s):
            ago = "since the last boot" if worker.age_s is None else f"for {show_span(worker.age_s)}"
            advice = "if its process still runs, it hangs: end it, and its jobs go back to the queue"
            yield problem("worker", f"{worker.id} was not heard from {ago}", advice)
        else:
            heard.append(worker)
            yield _judge_worker(worker, patient)
    painted = {model for worker in heard for model in worker.models}
    lacking = [model for model in patient.settings.infer.models if model not in painted]
    if heard and lacking and not patient.is_loading:
        seen = f"no worker can paint with {', '.join(lacking)}"
        yield problem("models served", seen, "the daemon's log says why: look for model_not_loaded")


def _judge_worker(worker: WorkerLine, patient: Patient) -> Finding:
    up_s = (patient.clock.wall_us() - worker.started_at_us) / 1e6
    seen = f"{worker.id} is {worker.state}, serves {', '.join(worker.models) or 'nothing'}"
    if worker.state is WorkerState.LOADING and up_s > LONG_LOADING_S:
        return warning("worker", f"{seen}, for {show_span(up_s)} already", "see its log; a slow disk loads slowly")
    return good("worker", f"{seen}, seen {show_span(worker.age_s or 0)} ago")


def check_logs(patient: Patient) -> Iterator[Finding]:
    """Errors of the last hour, by event."""
    folder = patient.settings.storage.data_dir / "log"
    if not patient.settings.log.file_bytes:
        yield good("logs", "no files ([log] file_bytes = 0); the journal has them")
        return
    if not folder.is_dir():
        return
    since = (datetime.now(UTC) - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%S")
    found: Counter[str] = Counter()
    for path in folder.glob("*.log"):
        found += _count_errors(path, since)
    if found:
        named = ", ".join(f"{event} ({count})" for event, count in found.most_common(4))
        yield warning("logs", f"errors in the last hour: {named}", f"read them in {folder}; docs/logs.md explains each")
    else:
        yield good("logs", f"no errors in the last hour ({folder})")


def _count_errors(path: Path, since: str) -> Counter[str]:
    """Events at error level in the end of a log, not older than `since`."""
    with open(path, "rb") as file:
        file.seek(max(os.fstat(file.fileno()).st_size - TAIL_BYTES, 0))
        lines = file.read().decode("utf-8", "replace").splitlines()
    found: Counter[str] = Counter()
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:  # the first, cut in two
            continue
        if isinstance(event, dict) and event.get("level") in BAD and str(event.get("timestamp", "")) >= since:
            found[str(event.get("event", "?"))] += 1
    return found
