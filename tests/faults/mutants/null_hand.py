"""Runs the real inference daemon with one thing broken, so that the suite can be seen to notice.

`python -m tests.faults.mutants.NAME --config F`; each mutant changes the code in memory and calls `main`.
Every worker's pictures differ from every other's, as they do on real devices: without that a picture
that was overwritten by another worker's would look the same.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import time

from PIL import Image

from tests.faults.null_infer import NullPainter
from umrgen_core.config import Settings
from umrgen_infer import __main__ as infer
from umrgen_infer.painter import Commission, OnStep, Painting


class OwnHandPainter(NullPainter):
    """Signs every picture with its process id; its last progress is written before the picture is."""

    def close(self) -> None:
        pass

    def paint(self, commission: Commission, on_step: OnStep, *, lean: bool = False) -> Painting:
        painting = super().paint(commission, on_step)
        time.sleep(0.1)
        red, green, blue, _ = os.getpid().to_bytes(4, "little")
        return dataclasses.replace(painting, image=Image.new("RGB", painting.image.size, (red, green, blue)))


def load_own_hand(_: Settings, name: str) -> OwnHandPainter:
    return OwnHandPainter()


def run() -> None:
    infer.load_painter = load_own_hand
    sys.exit(infer.main())


if __name__ == "__main__":  # nothing is broken: the control
    run()
