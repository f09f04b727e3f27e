"""A loop that counts how late it is: `python -m benchmarks.ticking --report F [--config F]`.

With --config the web tier runs in the same loop, without it nothing else does. Ticks keep to a schedule of their
own, so that one long stall counts for every tick that it held up. What was measured is written at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import time
from pathlib import Path

from benchmarks.figure import take_percentile
from umrgen_api.__main__ import serve
from umrgen_core.config import load_settings
from umrgen_core.logs import set_up_logs

PERIOD_S = 0.002
Ticks = list[tuple[float, float]]
"""When each tick was due, by the monotonic clock that all processes share, and by how many seconds it was late."""


async def tick(ticks: Ticks) -> None:
    """Note every tick until cancelled."""
    due = time.monotonic()
    while True:
        now = time.monotonic()
        while due <= now:
            ticks.append((due, now - due))
            due += PERIOD_S
        await asyncio.sleep(due - now)


async def run(config: Path | None) -> Ticks:
    """Tick until SIGTERM, with or without the web tier."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    ticks: Ticks = []
    ticking = asyncio.create_task(tick(ticks))
    if config is None:
        print(json.dumps({"event": "listening", "port": 0}), flush=True)
        await stop.wait()
    else:
        settings = load_settings(config)
        set_up_logs(settings.log, settings.storage.data_dir, "umrgen-api")
        await serve(settings, stop)
    ticking.cancel()
    return ticks


def read_lateness_ms(report: Path, began: float, ended: float, percent: float) -> float:
    """A percentile of how late the ticks between two moments were."""
    ticks: Ticks = json.loads(report.read_text())
    return take_percentile([late for due, late in ticks if began <= due <= ended], percent) * 1000


def main() -> None:
    """Entry."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--report", type=Path, required=True)
    options = parser.parse_args()
    options.report.write_text(json.dumps(asyncio.run(run(options.config))))


if __name__ == "__main__":
    main()
