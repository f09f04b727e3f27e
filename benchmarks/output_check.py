"""What the output check costs: `python -m benchmarks.output_check`.

Looks at pictures of the embedded model, resized, on one thread, each time beside the PNG encoding of the same
picture, and tells what the check adds to the memory of a process that has imported the pipeline's libraries.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import structlog
from PIL import Image

from umrgen_core.config import load_settings
from umrgen_core.sections import SafetySettings
from umrgen_infer.output_check import OutputCheck, load_output_check
from umrgen_infer.painter import Commission
from umrgen_infer.pipelines.load import load_painter
from umrgen_infer.png import encode_png

ROOT = Path(__file__).parents[1]
SIDES_PX = (64, 512, 1024)
PROMPT = "a red circle on a white background"


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20, help="looks at each size, after one that does not count")
    options = parser.parse_args()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # stdout is for the figures
    settings = load_settings(ROOT / "config.toml")
    painter = load_painter("tiny-klein", settings.models["tiny-klein"], 1)
    painted = painter.paint(Commission(PROMPT, "", 64, 64, 4, 0, ()), lambda _: None).image.convert("RGB")
    rss_before, began = rss_mb(), time.perf_counter()
    check = load_output_check(SafetySettings(output_check="opennsfw"))
    assert check is not None  # noqa: S101 - the setting asks for it
    report: dict[str, object] = {"load_s": round(time.perf_counter() - began, 3)}
    for side_px in SIDES_PX:
        picture = painted.resize((side_px, side_px), Image.Resampling.LANCZOS)
        report[f"{side_px}px"] = measure(check, picture, options.runs)
    report["rss_added_mb"] = round(rss_mb() - rss_before, 1)
    print(json.dumps(report, indent=2))


def measure(check: OutputCheck, picture: Image.Image, runs: int) -> dict[str, float]:
    """Medians in seconds, and how many PNG encodings of the same picture one look costs."""
    looks, encodings = [], []
    for _ in range(runs + 1):
        looks.append(seconds(lambda: check.examine(picture)))
        encodings.append(seconds(lambda: encode_png(picture, {})))
    look_s, png_s = statistics.median(looks[1:]), statistics.median(encodings[1:])
    return {
        "check_s": round(look_s, 4),
        "check_p75_s": round(statistics.quantiles(looks[1:], n=4)[2], 4),
        "png_s": round(png_s, 4),
        "check_to_png": round(look_s / png_s, 2),
        "score": round(check.examine(picture).score, 4),
    }


def seconds(work: Callable[[], object]) -> float:
    """How long one call takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def rss_mb() -> float:
    """Resident memory of this process in millions of bytes."""
    return float(psutil.Process(os.getpid()).memory_info().rss) / 1e6


if __name__ == "__main__":
    main()
