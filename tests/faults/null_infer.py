"""The real inference daemon with a painter that needs no torch, for faults that are not about inference.

`python -m tests.faults.null_infer --config F`; NULL_PAINTER_STEP_S is how long a step takes,
NULL_PAINTER_FAULT what goes wrong: kill (the process dies at the first step), hang (for ever at the first
step), garbage (no picture), size (of the wrong size).
"""

from __future__ import annotations

import os
import signal
import sys
import time

from PIL import Image

from umrgen_core.config import Settings
from umrgen_infer import __main__ as infer
from umrgen_infer.painter import Commission, OnStep, Painting


class NullPainter:
    """Paints a plain picture whose colour is its seed."""

    def __init__(self) -> None:
        self._step_s = float(os.environ.get("NULL_PAINTER_STEP_S", "0.01"))
        self._fault = os.environ.get("NULL_PAINTER_FAULT", "")

    def close(self) -> None:
        pass

    def paint(self, commission: Commission, on_step: OnStep, *, lean: bool = False) -> Painting:
        for step in range(1, commission.steps + 1):
            time.sleep(self._step_s)
            self._break("poison" in commission.prompt)
            on_step(step)
        size = (commission.width, commission.height)
        if self._fault == "size":
            size = (size[0] + 1, size[1])
        if self._fault == "garbage":
            return Painting("not a picture", {})  # type: ignore[arg-type]
        colour = tuple(commission.seed.to_bytes(8, "big")[-3:])
        return Painting(Image.new("RGB", size, colour), {"encode": 0.0, "denoise": 0.0, "decode": 0.0})

    def _break(self, poisoned: bool) -> None:
        if self._fault == "kill" or (poisoned and self._fault == "kill_poisoned"):
            os.kill(os.getpid(), signal.SIGKILL)
        while self._fault == "hang":
            time.sleep(60)


def load_null(_: Settings, name: str) -> NullPainter:
    return NullPainter()


if __name__ == "__main__":
    infer.load_painter = load_null
    sys.exit(infer.main())
