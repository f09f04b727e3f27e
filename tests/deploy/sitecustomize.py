"""Put on a daemon's PYTHONPATH inside a machine: its pipeline hangs in a step for as long as /run/hang exists."""

import sys
import threading
import time
from pathlib import Path


def _wait_for_diffusers() -> None:
    while "umrgen_infer.pipelines.diffusers_painter" not in sys.modules:
        time.sleep(0.05)
    from diffusers import FlowMatchEulerDiscreteScheduler as Scheduler

    step = Scheduler.step

    def hanging_step(*args: object, **named: object) -> object:
        while Path("/run/hang").exists():
            time.sleep(0.05)
        return step(*args, **named)

    Scheduler.step = hanging_step


if any("umrgen_infer" in argument for argument in sys.orig_argv):
    threading.Thread(target=_wait_for_diffusers, daemon=True).start()
