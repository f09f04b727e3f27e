"""What writing a PNG costs: `python -m benchmarks.png`.

Encodes pictures of four kinds at three sizes with UMRGEN's encoder and with Pillow's, in turn, on one thread, and
looks that all of them decode to the same pixels. Then a thread encodes beside one that only counts its turns: does
an encoder hold up the thread that starts the next job?
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import threading
import time
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

from umrgen_infer.png import encode_png

SIDES_PX = (512, 1024, 2048)
Encode = Callable[[Image.Image], bytes]


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7, help="encodings of each picture by each encoder")
    options = parser.parse_args()
    report: dict[str, object] = {}
    for kind, make in KINDS.items():
        for side_px in SIDES_PX:
            report[f"{kind} {side_px}px"] = measure(make(side_px), options.runs)
    photo = make_photo(1024)
    report["share of its time that another thread gets"] = {
        name: round(measure_share(encode, photo), 2) for name, encode in ENCODERS.items()
    }
    print(json.dumps(report, indent=2))


def make_photo(side_px: int) -> Image.Image:
    """Soft shapes with the grain of a photo."""
    random = np.random.default_rng(0)
    soft = np.asarray(make_drawing(side_px)).astype(np.int16)
    return Image.fromarray((soft + random.normal(0, 4, soft.shape)).clip(0, 255).astype(np.uint8))


def make_drawing(side_px: int) -> Image.Image:
    """Soft shapes without grain."""
    coarse = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side_px, side_px), Image.Resampling.BICUBIC)


def make_noise(side_px: int) -> Image.Image:
    """What cannot be compressed."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (side_px, side_px, 3), dtype=np.uint8))


def make_plain(side_px: int) -> Image.Image:
    """One colour."""
    return Image.new("RGB", (side_px, side_px), "teal")


def use_pillow(**options: int) -> Encode:
    """Pillow's encoder."""

    def encode(image: Image.Image) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, "PNG", **options)
        return buffer.getvalue()

    return encode


KINDS: dict[str, Callable[[int], Image.Image]] = {
    "photo": make_photo,
    "drawing": make_drawing,
    "noise": make_noise,
    "plain": make_plain,
}
ENCODERS: dict[str, Encode] = {
    "umrgen": lambda image: encode_png(image, {}),
    "pillow": use_pillow(),
    "pillow, level 1": use_pillow(compress_level=1),
    "pillow, level 1, run lengths": use_pillow(compress_level=1, compress_type=zlib.Z_RLE),
}


def measure(image: Image.Image, runs: int) -> dict[str, dict[str, float]]:
    """Median seconds and bytes of each encoder, and how many times UMRGEN's they are."""
    seconds: dict[str, list[float]] = {name: [] for name in ENCODERS}
    sizes: dict[str, int] = {}
    for _ in range(runs + 1):
        for name, encode in ENCODERS.items():
            began = time.perf_counter()
            content = encode(image)
            seconds[name].append(time.perf_counter() - began)
            sizes[name] = len(content)
            require_same(content, image)
    medians = {name: statistics.median(taken[1:]) for name, taken in seconds.items()}
    return {
        name: {
            "s": round(medians[name], 5),
            "times_umrgen_s": round(medians[name] / medians["umrgen"], 1),
            "bytes": sizes[name],
            "times_umrgen_bytes": round(sizes[name] / sizes["umrgen"], 2),
        }
        for name in ENCODERS
    }


def require_same(content: bytes, image: Image.Image) -> None:
    """Raise ValueError unless the PNG holds the picture's very pixels."""
    if Image.open(io.BytesIO(content)).tobytes() != image.tobytes():
        raise ValueError("the pixels have changed")


def measure_share(encode: Encode, image: Image.Image, lasts_s: float = 1.0) -> float:
    """How often a thread gets to run beside one that encodes, as a share of how often it does alone."""

    def count_turns() -> int:
        ends, turns = time.perf_counter() + lasts_s, 0
        while time.perf_counter() < ends:
            time.sleep(0)  # gives the lock away, as a thread does that waits for a socket
            turns += 1
        return turns

    alone, stop = count_turns(), threading.Event()

    def encode_on() -> None:
        while not stop.is_set():
            encode(image)

    thread = threading.Thread(target=encode_on)
    thread.start()
    try:
        return count_turns() / alone
    finally:
        stop.set()
        thread.join()


if __name__ == "__main__":
    main()
