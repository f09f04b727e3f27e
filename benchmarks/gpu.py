"""What UMRGEN makes of a GPU: `python -m benchmarks.gpu`. Without a GPU the same on tiny shapes, and it says so.

klein-4B's shapes with random weights. Each work is painted by the bare pipeline of diffusers called in a loop,
by UMRGEN's painter with one option after the other, and by the whole daemon over a real store. Figures, table and
plot go to $OUT, or build/ without it. On one H200 it is made to end within ten minutes.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import structlog
import torch
from PIL import Image

from benchmarks.gpu_daemon import measure_daemon
from benchmarks.gpu_models import KLEIN_4B, TINY, build_pipeline, count_step_flops
from benchmarks.gpu_report import draw_plot, write_table
from umrgen_core.config import load_settings
from umrgen_core.errors import UmrgenError
from umrgen_core.profiles import ModelProfile
from umrgen_infer.painter import Commission, Painting
from umrgen_infer.pipelines.call import build_arguments
from umrgen_infer.pipelines.diffusers_painter import DiffusersPainter, LoadedModel
from umrgen_infer.pipelines.load import quieten
from umrgen_infer.pipelines.speed import speed_up

ROOT = Path(__file__).parents[1]
STEPS = 4
SEED = 1
PROMPT = "a red cat on a chair"
SEEN, UNSEEN = " (seen before)", " (never seen)"
"""Of prompt and references."""
ALL_EXACT = f"all that is exact{SEEN}"


@dataclass(frozen=True, slots=True)
class Bench:
    """Where it runs, and how large."""

    device: str
    dtype: str
    shapes: dict[str, Any]
    sides: tuple[int, int, int]
    """Pixels of a small picture, a large one, and a capped reference; a whole reference is as large as the picture."""
    repeats: int
    jobs: int
    attention: str
    matrix_side: int
    compiled: bool

    @property
    def on_cuda(self) -> bool:
        """Whether there is a GPU."""
        return self.device.startswith("cuda")


@dataclass(frozen=True, slots=True)
class Work:
    """One kind of picture."""

    side_px: int
    references: int = 0
    reference_px: int = 0

    def __str__(self) -> str:
        beside = f" + {self.references} of {self.reference_px} px" if self.references else ""
        return f"{self.side_px} px{beside}"


class NoLoras:
    """None is loaded here."""

    def applied(self, loras: Sequence[tuple[str, float]]) -> AbstractContextManager[None]:  # noqa: ARG002
        """Nothing."""
        return nullcontext()

    def clear(self) -> None:
        """Nothing."""


def main() -> None:
    """Measure everything and write it down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="pictures of each kind; the median counts")
    parser.add_argument("--jobs", type=int, default=16, help="jobs of each kind for the daemon")
    parser.add_argument("--variants", default="", help="names of variants, with commas between; default: all")
    parser.add_argument("--no-compile", action="store_true", help="leave out what takes minutes to compile")
    options = parser.parse_args()
    quieten()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    bench = choose_bench(options.repeats, options.jobs, compiled=not options.no_compile)
    results = measure(bench, set(filter(None, options.variants.split(","))))
    folder = Path(os.environ.get("OUT", ROOT / "build"))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gpu.json").write_text(json.dumps(results, indent=2))
    table = write_table(results["rows"])
    (folder / "gpu.md").write_text(table)
    draw_plot(results["rows"], folder / "gpu.png", f"{results['machine']}, {results['shapes']}: seconds a picture")
    print(table)
    print(json.dumps({key: value for key, value in results.items() if key != "rows"}, indent=2))


def choose_bench(repeats: int, jobs: int, *, compiled: bool) -> Bench:
    """The real shapes on a GPU, tiny ones on a processor."""
    if torch.cuda.is_available():
        sides = (512, 1024, 512)
        return Bench("cuda", "bfloat16", KLEIN_4B, sides, repeats, jobs, "_native_cudnn", 8192, compiled)
    torch.set_num_threads(1)  # more of them only wait for each other over tensors this small
    print("No GPU here: tiny shapes on the processor. The figures show that the script runs, and nothing of a GPU.")
    return Bench("cpu", "float32", TINY, (64, 128, 64), repeats, jobs, "_native_flash", 1024, compiled)


def measure(bench: Bench, wanted: set[str]) -> dict[str, Any]:
    """Every figure."""
    small, large, capped = bench.sides
    works = [Work(small), Work(large)]
    works += [Work(large, count, side) for side in (large, capped) for count in (1, 2, 4)]
    rate = measure_matrix_rate(bench)
    rows, pictures, flops = measure_bare(bench, works)
    daemon: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for name, changes in list_variants(bench).items():
        if wanted and name not in wanted:
            continue
        note(f"variant: {name}")
        try:
            rows.extend(measure_variant(bench, name, changes, pictures, daemon))
        except (RuntimeError, UmrgenError) as error:
            missing[name] = f"{type(error).__name__}: {error}"
            note(f"could not be run: {missing[name]}")
    finish_rows(rows, {str(work): count for work, count in flops.items()}, rate)
    rows.sort(key=lambda row: [str(work) for work in works].index(row["work"]))
    return {
        "machine": torch.cuda.get_device_name() if bench.on_cuda else f"processor ({platform.machine()})",
        "shapes": "klein-4B" if bench.shapes is KLEIN_4B else "tiny shapes",
        "versions": {"torch": torch.__version__, "diffusers": diffusers.__version__},
        "matrix_tflops": rate / 1e12,
        "step_tflop": {str(work): count / 1e12 for work, count in flops.items()},
        "daemon": daemon,
        "missing": missing,
        "rows": rows,
    }


def measure_variant(
    bench: Bench, name: str, changes: dict[str, Any], bare: dict[Work, Image.Image], daemon: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """A painter with these options at every work; the last one serves under the whole daemon as well."""
    profile = make_profile(bench, **changes)
    painter = make_painter(bench, profile)
    try:
        fresh = name.endswith(UNSEEN)
        for work, picture in bare.items():
            yield measure_painter(bench, painter, name, work, picture, fresh=fresh)
        for work in bare if name == ALL_EXACT else ():
            daemon[str(work)] = measure_service(bench, painter, profile, work)
    finally:
        painter.close()
        del painter
        gc.collect()


def list_variants(bench: Bench) -> dict[str, dict[str, Any]]:
    """One option after the other over the painter as it is, then all that change no more than the last bits."""
    compiled = {"compile": "inductor"} if bench.compiled else {}
    cached = {"cache_bytes": 1 << 31}
    variants: dict[str, dict[str, Any]] = {
        "painter": {},
        f"caches{SEEN}": cached,
        f"caches{UNSEEN}": cached,
        f"attention {bench.attention}": {"attention": bench.attention},
        "fp8 storage": {"storage_dtype": "float8_e4m3fn"},
    }
    if compiled:
        variants["compile"] = compiled
    # What was compiled stays so in this process, which is why this one comes last.
    everything = {**cached, "attention": bench.attention, **compiled}
    return {**variants, f"all that is exact{UNSEEN}": everything, ALL_EXACT: everything}


def make_profile(bench: Bench, **changes: Any) -> ModelProfile:
    """The shipped profile of klein-4B with every option off but `changes`."""
    plain = {"attention": "", "compile": "", "cache_bytes": 0, "storage_dtype": "", "reference_area_px": 0}
    device = {"device": bench.device, "dtype": bench.dtype, "multiple_px": 16}
    return (
        load_settings(ROOT / "config.toml").models["flux2-klein-4b"].model_copy(update={**plain, **device, **changes})
    )


def make_painter(bench: Bench, profile: ModelProfile) -> DiffusersPainter:
    """UMRGEN's own painter over a pipeline that was made here instead of loaded."""
    pipeline = build_pipeline(bench.shapes, bench.device, getattr(torch, bench.dtype))
    ran_with = speed_up(pipeline, profile, bench.device)
    return DiffusersPainter(LoadedModel(pipeline, pipeline, profile, bench.device, NoLoras(), ran_with))


def make_references(work: Work, fresh: int = 0) -> list[Image.Image]:
    """Noise, the same for the same place."""
    side, own = work.reference_px, hash(work) % (1 << 32) if fresh else 0
    return [
        Image.fromarray(np.random.default_rng((fresh, own, index)).integers(0, 256, (side, side, 3), dtype=np.uint8))
        for index in range(work.references)
    ]


def make_commission(work: Work, fresh: int = 0) -> Commission:
    """One picture of this kind; each `fresh` one has a prompt and references of its own."""
    references = tuple(make_references(work, fresh))
    prompt = f"{PROMPT}, {work}, {fresh}" if fresh else PROMPT
    return Commission(prompt, "", work.side_px, work.side_px, STEPS, SEED, references)


def measure_bare(
    bench: Bench, works: list[Work]
) -> tuple[list[dict[str, Any]], dict[Work, Image.Image], dict[Work, int]]:
    """The pipeline of diffusers as anyone calls it, with and without saving what it paints."""
    pipeline = build_pipeline(bench.shapes, bench.device, getattr(torch, bench.dtype))
    profile, folder = make_profile(bench), Path(os.environ.get("TMPDIR", "/tmp"))  # noqa: S108 - a scratch file
    scratch = folder / "umrgen-benchmark.png"
    rows: list[dict[str, Any]] = []
    pictures, flops = {}, {}
    for work in works:
        note(f"bare: {work}")
        commission = make_commission(work)

        def paint(commission: Commission = commission) -> Image.Image:
            arguments = {**build_arguments(profile, commission), "output_type": "pil"}
            picture: Image.Image = pipeline(**arguments).images[0]
            return picture

        pictures[work] = paint()
        flops[work] = count_step_flops(pipeline, build_arguments(profile, commission))
        rows.append({"work": str(work), "variant": "bare, saving nothing", **time_pictures(bench, paint)})

        def save(paint: Callable[[], Image.Image] = paint) -> None:
            paint().save(scratch)

        saving = time_pictures(bench, save)
        rows.append({"work": str(work), "variant": "bare, saving PNGs", **saving})
        scratch.unlink()
    return rows, pictures, flops


def measure_painter(
    bench: Bench, painter: DiffusersPainter, name: str, work: Work, bare: Image.Image, *, fresh: bool
) -> dict[str, Any]:
    """The painter's wall time, its stages by the device's own clock, and how far its picture is from the bare one."""
    commission = make_commission(work)
    stages: list[Painting] = []
    for _ in range(2):
        painted = painter.paint(commission, lambda _: None)  # compiles, fills caches
    unseen = iter([make_commission(work, fresh) for fresh in range(1, bench.repeats + 1)])

    def paint() -> None:
        stages.append(painter.paint(next(unseen) if fresh else commission, lambda _: None))

    timed = time_pictures(bench, paint)
    medians = {
        f"{stage}_s": statistics.median(painting.timings[stage] for painting in stages)
        for stage in ("encode", "denoise", "decode")
    }
    difference = np.abs(np.asarray(painted.image, np.int16) - np.asarray(bare, np.int16))
    exact = {"distance": int(difference.max()), "mean_distance": float(difference.mean())}
    return {"work": str(work), "variant": name, **timed, **medians, **exact, "ran_with": dict(painted.ran_with)}


def measure_service(bench: Bench, painter: DiffusersPainter, profile: ModelProfile, work: Work) -> dict[str, float]:
    """The daemon end to end."""
    note(f"daemon: {work}")
    return measure_daemon(painter, profile, work.side_px, make_references(work), STEPS, bench.jobs)


def time_pictures(bench: Bench, paint: Callable[[], object]) -> dict[str, Any]:
    """Median seconds of a picture, each waited for, and the most memory of the device."""
    if bench.on_cuda:
        torch.cuda.reset_peak_memory_stats()
    seconds = list(_time(paint, bench.repeats))
    peak = torch.cuda.max_memory_allocated() / 1e9 if bench.on_cuda else None
    return {"s_a_picture": statistics.median(seconds), "s_spread": [min(seconds), max(seconds)], "peak_gb": peak}


def _time(paint: Callable[[], object], repeats: int) -> Iterator[float]:
    for _ in range(repeats):
        began = time.perf_counter()
        paint()  # ends with a copy to the processor, which waits for the device
        yield time.perf_counter() - began


def measure_matrix_rate(bench: Bench) -> float:
    """Floating-point operations a second of a large matrix product on random numbers: the most there is to get."""
    side, dtype = bench.matrix_side, getattr(torch, bench.dtype)
    one, other = (torch.randn(side, side, device=bench.device, dtype=dtype) for _ in range(2))

    def multiply() -> None:
        for _ in range(10):
            one @ other
        if bench.on_cuda:
            torch.cuda.synchronize()

    multiply()
    return 10 * 2 * side**3 / statistics.median(_time(multiply, 5))


def finish_rows(rows: list[dict[str, Any]], flops: dict[str, int], rate: float) -> None:
    """What follows from two figures."""
    bare = {(row["work"], row["variant"]): row["s_a_picture"] for row in rows if row["variant"].startswith("bare")}
    for row in rows:
        row["speed_up"] = bare[row["work"], "bare, saving nothing"] / row["s_a_picture"]
        row["speed_up_saving"] = bare[row["work"], "bare, saving PNGs"] / row["s_a_picture"]
        if "denoise_s" in row:
            row["share"] = flops[row["work"]] * STEPS / row["denoise_s"] / rate


def note(what: str) -> None:
    """Where it is."""
    print(f"[{time.strftime('%H:%M:%S')}] {what}", flush=True)


if __name__ == "__main__":
    main()
