"""`make run`: both daemons in the foreground until Ctrl-C, each started again when it ends by itself."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from pathlib import Path

from umrgen_core.errors import CANNOT_START

MODULES = ("umrgen_api", "umrgen_infer")
POLL_S = 0.2
STOP_TIMEOUT_S = 40.0
SHORTEST_LIFE_S = 5.0
"""A daemon that ends sooner cannot start: its own message says why, and another try would not help."""


class Kept:
    """One daemon and when it was started."""

    def __init__(self, module: str, config: Path) -> None:
        self._module = module
        self._command = [sys.executable, "-m", module, "--config", str(config)]
        self.start()

    def start(self) -> None:
        """Start it, or start it again."""
        self._began = time.monotonic()
        self.process = subprocess.Popen(self._command)

    def tend(self) -> int | None:
        """Start it again if it has ended after a while; its exit status if it cannot start."""
        status = self.process.poll()
        if status is None:
            return None
        if status == CANNOT_START or time.monotonic() - self._began < SHORTEST_LIFE_S:
            return status or 1
        print(f"{self._module} ended with status {status}; starting it again", file=sys.stderr, flush=True)
        self.start()
        return None

    def stop(self) -> None:
        """Ask it to end, and insist."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()


def main() -> int:
    """Keep both until Ctrl-C or SIGTERM; the status of one that cannot start, else 0."""
    parser = argparse.ArgumentParser(prog="umrgen-run", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("config.toml"))
    config = parser.parse_args().config
    for number in (signal.SIGINT, signal.SIGTERM):  # SIGINT too: a shell's background jobs inherit it ignored
        signal.signal(number, signal.default_int_handler)
    kept = [Kept(module, config) for module in MODULES]
    status: int | None = None
    try:
        while status is None:
            time.sleep(POLL_S)
            status = next((s for one in kept if (s := one.tend()) is not None), None)
    except KeyboardInterrupt:
        status = 0  # Ctrl-C on a terminal reaches the children too
    for one in kept:
        one.stop()
    return status


if __name__ == "__main__":
    sys.exit(main())
