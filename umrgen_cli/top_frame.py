"""One frame of `umrgen-admin top`: what was read, laid out for a terminal of some size, line by line."""

from __future__ import annotations

from dataclasses import dataclass, field

from rich.cells import set_cell_size
from rich.text import Text

from umrgen_cli.figures import show_bytes, show_seconds, show_span, show_sparkline
from umrgen_core.clock import format_time
from umrgen_core.footprint import Footprint, Process
from umrgen_core.gpus import Gpu
from umrgen_core.jobs import JobState
from umrgen_core.overview import MOST_COUNTED, FinishedLine, Overview, QueueLine, RunningLine, WorkerLine
from umrgen_core.worker_store import WorkerState

ID_COLUMNS = 12
FIXED_COLUMNS = 72
"""Of a running job's line, all but its bar."""
GPU_COLUMNS = 70
"""Of a GPU's line, all but its bars."""
MOST_BAR_COLUMNS = 40
WIDE_COLUMNS = 94
MOST_MODELS = 5
MOST_GPUS = 8
FULL, NEARLY_FULL = 0.95, 0.8
STATE_STYLES = {JobState.COMPLETED: "green", JobState.FAILED: "bold red", JobState.CANCELLED: "yellow"}
WORKER_STYLES = {WorkerState.READY: "green", WorkerState.LOADING: "yellow", WorkerState.STOPPING: "yellow"}


@dataclass(frozen=True, slots=True)
class View:
    """Everything that a frame shows. `rates` are steps a second by job id, of those that are known."""

    version: str
    overview: Overview
    footprint: Footprint
    processes: list[Process]
    gpus: list[Gpu]
    disk_floor_bytes: int
    silent_s: float
    rates: dict[str, float] = field(default_factory=dict)


def build_frame(view: View, width: int, height: int) -> Text:
    """The frame: exactly `height` lines. The list of what ended last takes what the others leave."""
    overview = view.overview
    upper = [_build_header(view, width), _build_rule("workers", width), *_build_workers(view, width)]
    waiting = f"{overview.queued}{'+' if overview.queued >= MOST_COUNTED else ''} waiting"
    upper += [_build_rule(f"queue: {waiting}", width), *_build_queue(overview)]
    lower = [_build_rule("machine", width), *_build_machine(view, width)]
    title = f"ended: {sum(overview.ended_per_minute)} in an hour"
    upper += [_build_rule(title, width, show_sparkline(overview.ended_per_minute))]
    room = max(height - len(upper) - len(lower), 0)
    ended = [_describe_finished(line, overview.at_us, wide=width >= WIDE_COLUMNS) for line in overview.finished[:room]]
    lines = [*upper, *ended, *[Text()] * (room - len(ended)), *lower][:height]
    for line in lines:
        line.truncate(width)
    return Text("\n").join(lines)


def _build_header(view: View, width: int) -> Text:
    now_us = view.overview.at_us
    line = Text().append(f"UMRGEN {view.version}", "bold")
    for kind, name in (("api", "web tier"), ("infer", "daemon")):
        ages = [(now_us - process.started_at_us) / 1e6 for process in view.processes if process.kind == kind]
        line.append(f"   {name} ").append(*((f"up {show_span(max(ages))}", "green") if ages else ("down", "bold red")))
    states = (("paused", view.overview.paused_at_us), ("draining", view.overview.draining_at_us))
    closed = [f"{word} for {show_span((now_us - us) / 1e6)}" for word, us in states if us is not None]
    line.append("   queue ").append(*((", ".join(closed), "bold yellow") if closed else ("open", "green")))
    clock = f"{format_time(now_us)[11:19]} UTC"
    return line.append(" " * max(width - line.cell_len - len(clock), 1)).append(clock, "dim")


def _build_rule(title: str, width: int, right: str = "") -> Text:
    right = right[-max(width - len(title) - 6, 0) :].lstrip() if right else ""
    line = Text().append(f"{title} ", "bold cyan")
    tail = Text().append(f" {right}", "green") if right else Text()
    return line.append("─" * max(width - line.cell_len - tail.cell_len, 0), "dim").append(tail)


def _build_workers(view: View, width: int) -> list[Text]:
    lines: list[Text] = []
    for worker in view.overview.workers:
        lines.append(_describe_worker(worker, view))
        lines += [_describe_job(job, view, width) for job in view.overview.running if job.worker_id == worker.id]
    known = {worker.id for worker in view.overview.workers}
    lost = [job for job in view.overview.running if job.worker_id not in known]
    if lost:
        lines += [Text("● gone; its jobs go back to the queue", "red")]
        lines += [_describe_job(job, view, width) for job in lost]
    return lines or [Text("none: start umrgen-infer", "bold red")]


def _describe_worker(worker: WorkerLine, view: View) -> Text:
    heard = worker.is_heard(view.silent_s)
    line = Text().append("● ", WORKER_STYLES[worker.state] if heard else "bold red").append(f"{worker.id}  ", "bold")
    if not heard:
        ago = "since the last boot" if worker.age_s is None else f"for {show_span(worker.age_s)}"
        return line.append(f"not heard from {ago}", "bold red")
    idle = all(job.worker_id != worker.id for job in view.overview.running)
    state = "idle" if idle and worker.state is WorkerState.READY else str(worker.state)
    return line.append(state, WORKER_STYLES[worker.state]).append(f"  {', '.join(worker.models)}")


def _describe_job(job: RunningLine, view: View, width: int) -> Text:
    line = Text(f"  {job.id[:ID_COLUMNS]} ").append(_cell(job.agent, 12)).append(_cell(job.model, 15), "dim")
    line.append(f"{job.width}x{job.height} ".rjust(10))
    line.append(draw_bar(job.step / job.steps, max(min(width - FIXED_COLUMNS, MOST_BAR_COLUMNS), 8), "cyan"))
    line.append(f" {job.step}/{job.steps}".ljust(7))
    if job.cancel_requested:
        return line.append("cancelling", "yellow")
    rate = view.rates.get(job.id)
    line.append(f"{rate:.3g}/s" if rate else show_span((view.overview.at_us - job.started_at_us) / 1e6), "green")
    return line.append(f" try {job.attempts}", "yellow") if job.attempts > 1 else line


def draw_bar(share: float, columns: int, style: str) -> Text:
    """A bar that can also be read without colours."""
    filled = round(max(min(share, 1.0), 0.0) * columns)
    return Text().append("━" * filled, style).append("─" * (columns - filled), "dim")


def _build_queue(overview: Overview) -> list[Text]:
    lines = [_describe_waiting(line, overview.at_us) for line in overview.queue[:MOST_MODELS]]
    return lines or [Text("nothing waits", "dim")]


def _describe_waiting(line: QueueLine, now_us: int) -> Text:
    agents = f"of {line.agents} agent{'' if line.agents == 1 else 's'}"
    text = Text(f"  {_cell(line.model, 24)}").append(f"{line.jobs:>6} ", "bold").append(_cell(agents, 16))
    return text.append(f"the oldest for {show_span((now_us - line.oldest_at_us) / 1e6)}")


def _describe_finished(line: FinishedLine, now_us: int, *, wide: bool) -> Text:
    ago = show_span(max(now_us - line.finished_at_us, 0) / 1e6)
    text = Text().append(f"{ago:>9} ", "dim").append(_cell(str(line.state), 10), STATE_STYLES[line.state])
    text.append(f"{line.id[:ID_COLUMNS]} ").append(_cell(line.agent, 12))
    text.append(_cell(line.model, 15) if wide else "", "dim")
    text.append(_cell(f"{line.width}x{line.height}", 10))
    if line.error_code is not None:
        return text.append(line.error_code, "red")
    return text.append(f"{'' if line.run_s is None else show_seconds(line.run_s):>7}").append(
        f"  after {show_seconds(line.queued_s)}", "dim"
    )


def _build_machine(view: View, width: int) -> list[Text]:
    lines = [_describe_gpu(gpu, width) for gpu in view.gpus[:MOST_GPUS]]
    disk, usage = view.footprint, view.overview.usage
    low = disk.free_bytes < view.disk_floor_bytes
    text = Text().append("disk ", "bold").append(f"{show_bytes(disk.free_bytes)} free", "bold red" if low else "green")
    text.append(f"   database {show_bytes(disk.database_bytes)} + {show_bytes(disk.wal_bytes)} log")
    text.append(f"   pictures {show_bytes(usage.output_bytes + usage.reference_bytes)}")
    lines.append(text)
    if view.overview.webhooks_due or view.overview.webhooks_failed:
        said = f"webhooks {view.overview.webhooks_due} to be sent, {view.overview.webhooks_failed} given up"
        lines.append(Text(said, "yellow" if view.overview.webhooks_failed else ""))
    return lines


def _describe_gpu(gpu: Gpu, width: int) -> Text:
    columns = max(min((width - GPU_COLUMNS) // 2, 24), 5)
    line = Text().append(f"GPU {gpu.index} ", "bold").append(_cell(gpu.name.removeprefix("NVIDIA "), 12))
    if gpu.memory_total_bytes:
        share = (gpu.memory_used_bytes or 0) / gpu.memory_total_bytes
        line.append("memory ").append(draw_bar(share, columns, _choose_style(share)))
        line.append(f" {show_bytes(gpu.memory_used_bytes or 0)} of {show_bytes(gpu.memory_total_bytes)}  ")
    if gpu.utilisation is not None:
        line.append("busy ").append(draw_bar(gpu.utilisation, columns, "cyan")).append(f" {gpu.utilisation:.0%}")
    line.append("" if gpu.temperature_c is None else f"  {gpu.temperature_c} °C")
    return line.append("" if gpu.power_w is None else f"  {gpu.power_w:.0f} W")


def _choose_style(share: float) -> str:
    return "red" if share > FULL else "yellow" if share > NEARLY_FULL else "green"


def _cell(text: str, columns: int) -> str:
    """A text of exactly so many columns, the last of them a space."""
    short = text if len(text) < columns else f"{text[: columns - 2]}…"
    return set_cell_size(short, columns)
