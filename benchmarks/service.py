"""UMRGEN's processes for a measurement: a store of their own, a free port, and limits that are never met."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import requests

from benchmarks.client import PROMPT
from umrgen_cli.processes import Daemon, running
from umrgen_core.accounts import Accounts, Limit
from umrgen_core.agents import Scope
from umrgen_core.clock import SystemClock
from umrgen_core.config import Settings, load_settings
from umrgen_core.database import open_database
from umrgen_infer.painter import Commission

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "config.toml"
MANY = 1_000_000
START_S = 60.0
LOAD_S = 120.0
NULL_DAEMON = "benchmarks.null_daemon"
SLEEPER = "flux2-klein-4b"
"""A profile that paints any size, for painters that only sleep."""
BARE_STEPS = 4


@dataclass(frozen=True, slots=True)
class Server:
    """A running process that listens."""

    daemon: Daemon
    port: int

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.daemon.process.pid

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"


class Box:
    """One data directory and the processes over it. They end with `exits`."""

    def __init__(self, data_dir: Path, exits: ExitStack, environment: Mapping[str, str] | None = None) -> None:
        self.data_dir = data_dir
        self._exits = exits
        self._environment = {
            "UMRGEN_STORAGE__DATA_DIR": str(data_dir),
            "UMRGEN_STORAGE__BALLAST_BYTES": "0",
            "UMRGEN_STORAGE__DISK_FLOOR_BYTES": "0",
            "UMRGEN_STORAGE__SCRUB_INTERVAL_S": "86400",
            "UMRGEN_API__PORT": "0",
            "UMRGEN_LIMITS__QUEUED_JOBS": str(MANY),
            **(environment or {}),
        }
        settings = load_settings(CONFIG)
        storage = settings.storage.model_copy(update={"data_dir": data_dir, "ballast_bytes": 0, "disk_floor_bytes": 0})
        limits = settings.limits.model_copy(update={"queued_jobs": MANY})
        self.settings: Settings = settings.model_copy(update={"storage": storage, "limits": limits})

    def start(self, module: str, arguments: Sequence[str] = (), **environment: str) -> Daemon:
        """Start a module that takes --config."""
        log = self.data_dir.parent / f"{module}-{time.monotonic_ns()}.out"
        arguments = ["--config", str(CONFIG), *arguments]
        return self._exits.enter_context(running_module(module, arguments, log, {**self._environment, **environment}))

    def start_web(self, module: str = "umrgen_api", arguments: Sequence[str] = ()) -> Server:
        """The web tier, answering."""
        daemon = self.start(module, arguments)
        server = Server(daemon, int(str(daemon.wait_for_event("listening", START_S)["port"])))
        requests.get(f"{server.url}/healthz", timeout=START_S).raise_for_status()
        return server

    def start_daemon(self, module: str = "umrgen_infer", **environment: str) -> Daemon:
        """The inference daemon, its model loaded."""
        daemon = self.start(module, **environment)
        daemon.wait_for_event("model_ready", LOAD_S)
        return daemon

    def make_keys(self, count: int) -> list[str]:
        """Keys of as many new agents without limits."""
        return asyncio.run(self._make_keys(count))

    async def _make_keys(self, count: int) -> list[str]:
        async with open_database(self.settings, SystemClock()) as database:
            return await make_agents(Accounts(database), count)


async def make_agents(accounts: Accounts, count: int) -> list[str]:
    """Keys of as many new agents, each without limits that a measurement would meet."""
    limits: dict[Limit, int | None] = dict.fromkeys((Limit.CONCURRENT_JOBS, Limit.RATE, Limit.READS), MANY)
    limits |= {Limit.REFERENCES: MANY, Limit.REFERENCE_BYTES: 1 << 40, Limit.OUTPUT_BYTES: 1 << 40}
    keys = []
    for number in range(count):
        await accounts.create_agent(f"agent{number}", limits)
        keys.append((await accounts.create_key(f"agent{number}", "k", list(Scope), None, {})).key)
    return keys


@contextmanager
def open_box(folder: Path, environment: Mapping[str, str] | None = None) -> Iterator[Box]:
    """A box in a new folder below `folder`; everything is gone afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder) as place, ExitStack() as exits:
        yield Box(Path(place) / "data", exits, environment)


@contextmanager
def running_module(
    module: str, arguments: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[Daemon]:
    """A module as a process, its events in `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
        )
    daemon = Daemon(module, process, log)
    with running(daemon):
        yield daemon


@contextmanager
def running_yardstick(folder: Path) -> Iterator[Server]:
    """The bare aiohttp server, with the files of `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with running_module("benchmarks.yardstick", [str(folder)], folder / "yardstick.out") as daemon:
        yield Server(daemon, int(str(daemon.wait_for_event("listening", START_S)["port"])))


def commission(side_px: int, seed: int = 1) -> Commission:
    """A picture to paint without the service."""
    return Commission(PROMPT, "", side_px, side_px, BARE_STEPS, seed, ())
