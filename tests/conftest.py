"""Parts that every test may build on: real SQLite below tmp_path, a clock that the test moves."""

from __future__ import annotations

import functools
import io
import shutil
import signal
import tempfile
import tomllib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.ending import END_OF_RUN
from umrgen_core.agent_store import AgentStore
from umrgen_core.agents import Agent
from umrgen_core.claim_store import ClaimStore
from umrgen_core.config import Settings
from umrgen_core.database import Database, open_database
from umrgen_core.job_store import JobStore
from umrgen_core.keys import mint_key
from umrgen_core.recovery_store import RecoveryStore
from umrgen_core.reference_store import ReferenceStore
from umrgen_core.schema import ensure_store

ROOT = Path(__file__).parents[1]
DEVELOPMENT_KEY = "z-img-secret-key-2026"


def pytest_configure() -> None:
    """Hear Ctrl-C, and let what is started hear it: the background of a shell ignores it, and hands that on."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_sessionfinish() -> None:
    """Stop what the whole run shared."""
    END_OF_RUN.close()


class FakeClock:
    """A clock that stands still until it is moved. Reboots on request."""

    def __init__(self) -> None:
        self.wall = 1_795_000_000_000_000
        self.boot = 1_000_000
        self.boot_name = "boot-1"

    @property
    def boot_id(self) -> str:
        return self.boot_name

    def wall_us(self) -> int:
        return self.wall

    def boot_ms(self) -> int:
        return self.boot

    def advance(self, seconds: float) -> None:
        self.wall += int(seconds * 1e6)
        self.boot += int(seconds * 1e3)

    def reboot(self) -> None:
        self.boot_name = f"{self.boot_name}+"
        self.boot = 5_000


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@functools.cache
def empty_store() -> Path:
    """A store as the service creates it, made once: Alembic takes half a second."""
    folder = Path(tempfile.mkdtemp(prefix="umrgen-empty-"))
    END_OF_RUN.callback(shutil.rmtree, folder, ignore_errors=True)
    database = folder / "umrgen.sqlite3"
    ensure_store(folder, database)
    return database


def make_settings(data_dir: Path, **sections: dict[str, Any]) -> Settings:
    """The shipped config.toml with some keys changed, over an empty store that is there already."""
    if not data_dir.exists():
        data_dir.mkdir(parents=True)
        shutil.copy(empty_store(), data_dir / "umrgen.sqlite3")
    tree = tomllib.loads((ROOT / "config.toml").read_text())
    tree["storage"]["data_dir"] = str(data_dir)
    tree["storage"]["ballast_bytes"] = 0
    for section, values in sections.items():
        tree[section] = {**tree.get(section, {}), **values}
    return Settings(**tree)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return make_settings(tmp_path / "data")


@pytest.fixture
async def database(settings: Settings, clock: FakeClock) -> AsyncIterator[Database]:
    async with open_database(settings, clock) as opened:
        yield opened


@pytest.fixture
def agents(database: Database, settings: Settings) -> AgentStore:
    return AgentStore(database, settings.limits)


@pytest.fixture
def jobs(database: Database, settings: Settings) -> JobStore:
    return JobStore(database, settings)


@pytest.fixture
def claims(database: Database, settings: Settings) -> ClaimStore:
    return ClaimStore(database, settings)


@pytest.fixture
def recovery(database: Database, settings: Settings) -> RecoveryStore:
    return RecoveryStore(database, settings)


@pytest.fixture
def references(database: Database, settings: Settings) -> ReferenceStore:
    return ReferenceStore(database, settings.storage.reference_retention_s)


@pytest.fixture
def make_agent(agents: AgentStore) -> Callable[..., Any]:
    """`await make_agent("alice", concurrent_jobs=5)`: an agent with limits of its own."""

    async def make(name: str, **limits: int) -> Agent:
        key = mint_key()
        agent_id = await agents.create_agent(name, f"sid_ext_{name}", key)
        if limits:
            columns = ", ".join(f"{column} = {int(value)}" for column, value in limits.items())
            await agents._db.writer.run(lambda c: c.execute(f"UPDATE agents SET {columns} WHERE id = {agent_id}"))
        agent = await agents.find_by_key(key)
        assert agent is not None
        return agent

    return make


def picture_bytes(
    width: int = 96, height: int = 80, image_format: str = "PNG", seed: int = 0, mode: str = "RGB", **options: Any
) -> bytes:
    """An encoded picture of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, image_format, **options)
    return buffer.getvalue()
