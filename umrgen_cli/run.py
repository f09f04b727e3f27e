"""`make run`: both daemons in the foreground until Ctrl-C."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from pathlib import Path

MODULES = ("umrgen_api", "umrgen_infer")
POLL_S = 0.2
STOP_TIMEOUT_S = 40.0


def main() -> int:
    """Start both, wait, stop both; the status is that of the first to end by itself."""
    parser = argparse.ArgumentParser(prog="umrgen-run", description=main.__doc__)
    parser.add_argument("--config", type=Path, default=Path("config.toml"))
    config = str(parser.parse_args().config)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    processes = [subprocess.Popen([sys.executable, "-m", module, "--config", config]) for module in MODULES]
    try:
        while all(process.poll() is None for process in processes):
            time.sleep(POLL_S)
    except KeyboardInterrupt:
        pass  # Ctrl-C on a terminal reaches the children too
    return _stop(processes)


def _stop(processes: list[subprocess.Popen[bytes]]) -> int:
    status = next((p.returncode for p in processes if p.poll() is not None), 0)
    for process in processes:
        if process.poll() is None:
            process.terminate()
    for process in processes:
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
    return status


if __name__ == "__main__":
    sys.exit(main())
