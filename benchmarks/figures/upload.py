"""Uploading a JPEG of 10 MB beside bare decoding, scaling and encoding; and how that holds up the event loop."""

from __future__ import annotations

import io
import multiprocessing
import time
from functools import lru_cache
from statistics import median

import numpy as np
from PIL import Image

from benchmarks.cpu import read_family_cpu_s
from benchmarks.figure import Figure, Judged, Plan, Result
from benchmarks.load import STAMP, Ask, Load, run_load
from benchmarks.rounds import alternate
from benchmarks.service import Server, open_box, running_module
from benchmarks.ticking import read_lateness_ms

SIDE_PX = 4096
GRAIN = 15.5
MOST_BYTES = 10 << 20
STORED_PX = 4_000_000
UPLOADS = 4
RATIO_BAR = 1.5
CLIENTS = 4
STALL_UPLOADS = 16
STALL_PERCENT = 99.9
STALL_BAR_MS = 20.0
BOUNDARY = "benchmark"


def measure(plan: Plan) -> Result:
    """Time of one upload, then the loop under several at once."""
    return Result([_measure_time(plan), _measure_stall(plan)])


@lru_cache
def make_jpeg(most_bytes: int = MOST_BYTES, side_px: int = SIDE_PX) -> bytes:
    """Noise under soft shapes, in as good a quality as `most_bytes` hold, with a comment to be stamped."""
    random = np.random.default_rng(0)
    soft = Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8)).resize((side_px, side_px))
    pixels = np.asarray(soft).astype(np.int16) + random.normal(0, GRAIN, (side_px, side_px, 1)).astype(np.int16)
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    for quality in range(95, 20, -1):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality, comment=STAMP)
        if buffer.tell() <= most_bytes:
            break
    return buffer.getvalue()


def redo_bare(content: bytes) -> None:
    """Decode, scale to what is stored, encode: the least that an upload can be."""
    image = Image.open(io.BytesIO(content))
    scale = min(1.0, (STORED_PX / (image.width * image.height)) ** 0.5)
    size = (int(image.width * scale), int(image.height * scale))
    image.draft("RGB", size)
    scaled = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    scaled.save(io.BytesIO(), "JPEG", quality=95, subsampling=0)


def make_upload(key: str) -> Ask:
    """An upload of bytes that are new each time."""
    disposition = 'Content-Disposition: form-data; name="file"; filename="photo.jpg"'
    head = f"--{BOUNDARY}\r\n{disposition}\r\nContent-Type: image/jpeg\r\n\r\n".encode()
    body = head + make_jpeg() + f"\r\n--{BOUNDARY}--\r\n".encode()
    return Ask("/api/v1/upload-reference", "POST", key, body, f"multipart/form-data; boundary={BOUNDARY}")


def _measure_time(plan: Plan) -> Figure:
    uploads = plan.count(UPLOADS, 1)
    cpu_s: list[float] = []
    with open_box(plan.folder) as box, multiprocessing.get_context("spawn").Pool(1) as pool:
        key = box.make_keys(1)[0]
        web = box.start_web()

        def upload() -> float:
            before = read_family_cpu_s(web.pid)
            answers = run_load(Load(web.port, [[make_upload(key)]], uploads))
            cpu_s.append((read_family_cpu_s(web.pid) - before) / uploads)
            return answers.percentile_ms(50)

        bare_cpu_s: list[float] = []

        def redo() -> float:
            times = [pool.apply(time_redo, (make_jpeg(),)) for _ in range(uploads)]
            bare_cpu_s.append(median(spent_s for _, spent_s in times))
            return median(took_s for took_s, _ in times) * 1000

        taken = alternate(plan.rounds, {"upload": upload, "bare": redo})
    return Figure(
        "upload.time",
        f"upload of a JPEG of {len(make_jpeg()) / 1e6:.1f} MB ÷ bare decoding, scaling and encoding",
        "ms",
        taken["upload"],
        taken["bare"],
        bar=RATIO_BAR,
        beside={
            "processor time of web tier and child, ms": median(cpu_s[1:]) * 1000,
            "bare: processor time, ms": median(bare_cpu_s[1:]) * 1000,
        },
    )


def time_redo(content: bytes) -> tuple[float, float]:
    """Seconds, and seconds of processor time, of one bare re-encoding in this process: a child, as the sanitiser is."""
    began, cpu_began = time.perf_counter(), time.process_time()
    redo_bare(content)
    return time.perf_counter() - began, time.process_time() - cpu_began


def _measure_stall(plan: Plan) -> Figure:
    """The web tier with a ticker in its loop; beside it, under the same load, a loop that only ticks."""
    with open_box(plan.folder) as box:
        place = box.data_dir.parent
        reports = {"web": place / "web.json", "idle": place / "idle.json"}
        key = box.make_keys(1)[0]
        arguments = ["--report", str(reports["idle"])]
        with running_module("benchmarks.ticking", arguments, place / "idle.out") as idle:
            idle.wait_for_event("listening", 60)
            web = box.start_web("benchmarks.ticking", arguments=("--report", str(reports["web"])))
            moments = [_upload_together(web, key, plan.count(STALL_UPLOADS, CLIENTS)) for _ in range(plan.rounds + 1)]
            web.daemon.stop()
        late = {
            name: [read_lateness_ms(report, *moment, STALL_PERCENT) for moment in moments[1:]]
            for name, report in reports.items()
        }
    return Figure(
        "upload.stall",
        f"event loop under {CLIENTS} uploads of 10 MB at once: p{STALL_PERCENT} late, less that of an idle loop",
        "ms",
        late["web"],
        late["idle"],
        Judged.DIFFERENCE,
        STALL_BAR_MS,
    )


def _upload_together(web: Server, key: str, uploads: int) -> tuple[float, float]:
    began = time.monotonic()
    run_load(Load(web.port, [[make_upload(key)]] * CLIENTS, uploads))
    return began, time.monotonic()
