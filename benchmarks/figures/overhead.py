"""What the service adds to a picture: one at a time with the embedded model, and back to back with one of 0.3 s."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median

from benchmarks.client import NATIVE_PX, Client
from benchmarks.figure import Figure, Judged, Plan, Result, take_percentile
from benchmarks.gap import SleepingPainter
from benchmarks.service import BARE_STEPS, NULL_DAEMON, SLEEPER, commission, open_box
from umrgen_infer.__main__ import load_painter
from umrgen_infer.painter import Painter
from umrgen_infer.png import encode_png

PAIRS = 12
ADDED_BAR_MS = 15.0
PICTURES = 12
SIDE_PX = 1024
PICTURE_S = 0.3
THROUGHPUT_BAR = 0.98


@dataclass(frozen=True, slots=True)
class Added:
    """Of one picture: milliseconds that the service added to the call beside it, and the stages of its own run."""

    bare_ms: float
    added_ms: float
    own_ms: float
    png_ms: float
    save_ms: float


def measure(plan: Plan) -> Result:
    """Both."""
    return Result([*measure_latency(plan), measure_throughput(plan)])


def measure_latency(plan: Plan) -> list[Figure]:
    """A call of the bare pipeline in this process, then a job through HTTP, and so on."""
    with open_box(plan.folder) as box:
        client = Client(box.start_web().url, box.make_keys(1)[0])
        box.start_daemon()
        painter = load_painter(box.settings, box.settings.default_model)
        _run_pair(painter, client, 0)
        rounds = [
            [_run_pair(painter, client, seed) for seed in range(plan.count(PAIRS, 3))] for _ in range(plan.rounds)
        ]
    every = [pair for taken in rounds for pair in taken]
    added = [median(pair.added_ms for pair in taken) for taken in rounds]
    own = [median(pair.own_ms for pair in taken) for taken in rounds]
    png_ms = median(pair.png_ms for pair in every)
    return [
        Figure(
            "overhead.latency",
            f"POST → completed minus the bare pipeline call beside it, {NATIVE_PX} px, one at a time: p50",
            "ms",
            added,
            judged=Judged.VALUE,
            bar=ADDED_BAR_MS,
            beside={
                "bare call p50, ms": median(pair.bare_ms for pair in every),
                "PNG encode p50, ms": png_ms,
                "PNG, file and check of the job p50, ms": median(pair.save_ms for pair in every),
                "p90, ms": take_percentile([pair.added_ms for pair in every], 90),
            },
        ),
        Figure(
            "overhead.own_stages",
            "POST → completed minus the pipeline stages of the job itself: p50",
            "ms",
            own,
            judged=Judged.VALUE,
        ),
    ]


def _run_pair(painter: Painter, client: Client, seed: int) -> Added:
    began = time.perf_counter()
    painting = painter.paint(commission(NATIVE_PX, seed), lambda _: None)
    painted = time.perf_counter()
    encode_png(painting.image, {})
    encoded = time.perf_counter()
    job = client.run_job(seed)
    bare_ms = (painted - began) * 1000
    return Added(bare_ms, job.whole_ms - bare_ms, job.own_ms, (encoded - painted) * 1000, job.save_ms)


def measure_throughput(plan: Plan) -> Figure:
    """Pictures a second with all jobs queued before, beside the same painter called in a loop."""
    pictures = plan.count(PICTURES, 4)
    environment = {"UMRGEN_INFER__MODELS": f'["{SLEEPER}"]'}
    step_s = PICTURE_S / BARE_STEPS
    painter = SleepingPainter(step_s)
    with open_box(plan.folder, environment) as box:
        client = Client(box.start_web().url, box.make_keys(1)[0])
        box.start_daemon(NULL_DAEMON, SLEEP_STEP_S=str(step_s))
        _serve(client, 2)
        taken = [(_serve(client, pictures), _paint(painter, pictures)) for _ in range(plan.rounds)]
    return Figure(
        "overhead.throughput",
        f"pictures back to back, {PICTURE_S} s and {SIDE_PX} px each: a second ÷ the bare pipeline's",
        "pictures/s",
        [served for served, _ in taken],
        [bare for _, bare in taken],
        bar=THROUGHPUT_BAR,
        at_least=True,
    )


def _serve(client: Client, pictures: int) -> float:
    """Pictures a second, from the end of the first job to that of the last: of those between, as of a busy box."""
    body = {"width": SIDE_PX, "height": SIDE_PX, "steps": BARE_STEPS}
    jobs = [client.post(**body) for _ in range(pictures + 1)]
    client.wait(jobs[0])
    began = time.perf_counter()
    for job in jobs:
        client.wait(job)
    return pictures / (time.perf_counter() - began)


def _paint(painter: SleepingPainter, pictures: int) -> float:
    began = time.perf_counter()
    for _ in range(pictures):
        painter.paint(commission(SIDE_PX), lambda _: None)
    return pictures / (time.perf_counter() - began)
