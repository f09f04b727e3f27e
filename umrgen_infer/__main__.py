"""`umrgen-infer --config F`: claim jobs and paint until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

from umrgen_core.clock import SystemClock
from umrgen_core.config import Settings, load_settings
from umrgen_core.database import open_database
from umrgen_core.errors import CANNOT_START, UmrgenError
from umrgen_core.logs import get_logger, set_up_logs
from umrgen_infer.daemon import Daemon
from umrgen_infer.painter import Painter

LOG = get_logger("infer")


def load_painter(settings: Settings) -> Painter:
    """Load the served model. torch takes seconds to import: it is loaded here, once the process is known."""
    from umrgen_infer.pipelines.load import load_painter as load  # noqa: PLC0415 - the one

    name = settings.default_model
    return load(name, settings.models[name], settings.infer.threads)


async def _run(settings: Settings) -> int:
    clock = SystemClock()
    async with open_database(settings, clock) as database:
        daemon = Daemon(settings, clock, database, lambda: load_painter(settings))
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, daemon.stop)
        LOG.info("started", pid=os.getpid())
        status = await daemon.serve()
        LOG.info("stopped", status=status)
    # A pipeline may still be busy in its thread; everything that counts is on disk.
    logging.shutdown()
    os._exit(status)


def main() -> int:
    """Entry of the console script."""
    parser = argparse.ArgumentParser(prog="umrgen-infer", description="UMRGEN's inference daemon")
    parser.add_argument("--config", type=Path, default=Path("config.toml"), help="default: config.toml")
    options = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        settings = load_settings(options.config)
        set_up_logs(settings.log, settings.storage.data_dir, "umrgen-infer")
        return asyncio.run(_run(settings))
    except (UmrgenError, OSError) as error:
        print(f"umrgen-infer: {error}", file=sys.stderr)
        return CANNOT_START


if __name__ == "__main__":
    sys.exit(main())
