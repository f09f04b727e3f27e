"""`umrgen-infer --config F`: claim jobs and paint until SIGTERM or SIGINT. `fetch` and `check` see to one profile."""

from __future__ import annotations

import argparse
import asyncio
import functools
import logging
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol, runtime_checkable

from umrgen_core.clock import SystemClock
from umrgen_core.collector import set_start_aside
from umrgen_core.config import Settings, load_settings
from umrgen_core.database import open_database
from umrgen_core.errors import UmrgenError, find_exit_status
from umrgen_core.logs import get_logger, log_death, set_up_logs
from umrgen_core.loras import LoraShelf
from umrgen_core.metrics.listener import show_metrics
from umrgen_core.metrics.registry import make_registry
from umrgen_core.supervision import Supervision, Work
from umrgen_core.systemd import Notifier, find_notifier
from umrgen_core.tracing import load_tracer
from umrgen_core.worker_store import WorkerState
from umrgen_infer.daemon import Daemon
from umrgen_infer.memory import DeviceMemory, ReadMemory, read_nothing
from umrgen_infer.metrics import DaemonMetrics
from umrgen_infer.painter import Painter

LOG = get_logger("infer")
OFFLINE = "HF_HUB_OFFLINE"
COMMANDS: Mapping[str, tuple[str, str, str]] = {
    "fetch": ("umrgen_infer.pipelines.fetch", "0", "download the weights of a profile"),
    "check": ("umrgen_infer.check", "1", "load a profile, paint with it, and say what it takes"),
}
"""Module, whether the hub's client stays offline, and what it does. They run in a process of their own: the
client reads the switch when it is imported, and the daemon imports neither of them."""


@runtime_checkable
class _Measures(Protocol):
    def read_memory(self) -> DeviceMemory | None:
        """The memory of the device that it paints on."""


class Loader:
    """Loads models, and reads the memory of the device through the last of them: only they know torch."""

    def __init__(self, settings: Settings, notifier: Notifier) -> None:
        self._settings = settings
        self._notifier = notifier
        self._read: ReadMemory = read_nothing
        self.loading: str | None = None
        """The model that is being loaded."""

    def load(self, name: str) -> Painter:
        """Load a served model by its name."""
        self.loading = name
        try:
            # A load on demand is part of a run, whose deadline comes first and ends it in good order.
            with self._notifier.patience(self._settings.jobs.deadline_s):
                painter = load_painter(self._settings, name)
        finally:
            self.loading = None
        if isinstance(painter, _Measures):
            self._read = painter.read_memory
        return painter

    def read_memory(self) -> DeviceMemory | None:
        """None until a model is loaded, and on a processor."""
        return self._read()


def load_painter(settings: Settings, name: str) -> Painter:
    """Load a model. torch takes seconds to import: it is loaded here, once the process is known."""
    from umrgen_infer.pipelines.load import load_painter as load  # noqa: PLC0415 - the one

    set_start_aside()
    find_lora = functools.partial(LoraShelf(settings.infer.loras).find_file, name)
    return load(name, settings.models[name], settings.infer.threads, find_lora)


async def _run(settings: Settings, notifier: Notifier) -> int:
    tracer = load_tracer(settings.trace, "umrgen-infer")
    clock, loader = SystemClock(), Loader(settings, notifier)

    def tell_state(state: WorkerState) -> None:
        if state is WorkerState.READY:
            notifier.ready()
        elif state is WorkerState.STOPPING:
            notifier.stopping()

    metrics = DaemonMetrics(make_registry("infer"), settings.served_models)
    async with (
        open_database(settings, clock, meter=metrics) as database,
        show_metrics("infer_listen", settings.metrics.infer_listen, metrics.registry),
    ):
        supervision = Supervision(notifier, database)
        daemon = Daemon(
            settings,
            clock,
            database,
            loader.load,
            read_memory=loader.read_memory,
            beat=supervision.beat,
            tell_state=tell_state,
            tracer=tracer,
        )
        telling = asyncio.create_task(supervision.tell_status(lambda work: describe(daemon, loader, work)))
        telling.add_done_callback(log_death)
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, daemon.stop)
        LOG.info("started", pid=os.getpid())
        status = await daemon.serve()
        telling.cancel()
        with suppress(asyncio.CancelledError):
            await telling
        LOG.info("stopped", exit_status=status)
    if tracer is not None:
        await asyncio.to_thread(tracer.close)
    # A pipeline may still be busy in its thread; everything that counts is on disk.
    logging.shutdown()
    os._exit(status)


def describe(daemon: Daemon, loader: Loader, work: Work) -> str:
    """The line of status: "running ext_…, step 3/4, queue 12"."""
    loading = f"loading {loader.loading}"
    does = daemon.describe()
    return ", ".join([does, *([loading] if loader.loading and loading != does else []), work.queue])


def _read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="umrgen-infer", description="UMRGEN's inference daemon")
    parser.add_argument("--config", type=Path, default=Path("config.toml"), help="default: config.toml")
    commands = parser.add_subparsers(dest="command", title="commands", description="without one: claim jobs and paint")
    for command, (_, _, what) in COMMANDS.items():
        listed = commands.add_parser(command, help=what, description=what)
        listed.add_argument("--profile", required=True, metavar="NAME", help="a [models.NAME] of the config file")
        # Here or before the command; without a default, which would undo the other.
        listed.add_argument("--config", type=Path, default=argparse.SUPPRESS, help="default: config.toml")
    return parser.parse_args()


def _become(options: argparse.Namespace) -> None:
    """Go on as the command's module. Ctrl-C and the exit status are then its own."""
    module, offline, _ = COMMANDS[options.command]
    arguments = [sys.executable, "-m", module, "--config", str(options.config), "--profile", options.profile]
    os.execve(sys.executable, arguments, {**os.environ, OFFLINE: offline})  # noqa: S606 - no shell is involved


def main() -> int:
    """Entry of the console script."""
    options = _read_options()
    if options.command is not None:
        _become(options)
    os.environ.setdefault(OFFLINE, "1")
    notifier = find_notifier()
    try:
        settings = load_settings(options.config)
        set_up_logs(settings.log, settings.storage.data_dir, "umrgen-infer")
        return asyncio.run(_run(settings, notifier))
    except (UmrgenError, OSError) as error:
        print(f"umrgen-infer: {error}", file=sys.stderr)
        return find_exit_status(error, was_ready=notifier.is_ready)


if __name__ == "__main__":
    sys.exit(main())
