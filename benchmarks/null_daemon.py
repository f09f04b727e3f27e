"""The real inference daemon with a painter that only sleeps: `python -m benchmarks.null_daemon --config F`.

SLEEP_STEP_S is how long each step takes.
"""

from __future__ import annotations

import os
import sys

from benchmarks.gap import SleepingPainter
from umrgen_core.config import Settings
from umrgen_infer import __main__ as infer
from umrgen_infer.painter import Painter


def load_sleeper(settings: Settings, name: str) -> Painter:  # noqa: ARG001 - whatever the model
    """A painter that sleeps."""
    return SleepingPainter(float(os.environ.get("SLEEP_STEP_S", "0")))


if __name__ == "__main__":
    infer.load_painter = load_sleeper
    sys.exit(infer.main())
