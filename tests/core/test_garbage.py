from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import FakeClock
from tests.core.test_claim_store import alice, claim, complete, job_id, nobody_can_write, submit  # noqa: F401 - fixtures
from umrgen_core import footprint
from umrgen_core.agents import Agent
from umrgen_core.checkpoint import vacuum, write_back
from umrgen_core.claim_store import ClaimStore
from umrgen_core.config import Settings
from umrgen_core.database import Database
from umrgen_core.errors import OperatorError, Unavailable
from umrgen_core.files import FileStore, Shelf
from umrgen_core.garbage import GarbageCollection
from umrgen_core.job_store import JobStore
from umrgen_core.names import output_disk_name
from umrgen_core.presence import Presence
from umrgen_core.wakeup import Hints, Listener, Wakeup


@pytest.fixture
def hints(settings: Settings) -> Iterator[Hints]:
    hints = Hints(settings.storage.data_dir)
    yield hints
    hints.close()


@pytest.fixture
def collection(database: Database, settings: Settings, hints: Hints) -> GarbageCollection:
    return GarbageCollection(database, settings, hints)


@pytest.fixture
def files(settings: Settings) -> FileStore:
    files = FileStore(settings.storage.data_dir)
    files.prepare()
    return files


@contextmanager
def another_process(settings: Settings) -> Iterator[None]:
    presence = Presence(settings.storage.data_dir, "1-other")
    try:
        yield
    finally:
        presence.withdraw()


async def put_output(files: FileStore, jobs: JobStore, claims: ClaimStore, agent: Agent) -> Path:
    """The file of a completed job's picture."""
    await submit(jobs, agent)
    claimed = await claim(claims)
    await complete(claims, claimed)
    name = output_disk_name(claimed.job_id, claimed.fence)
    files.publish_bytes(Shelf.OUTPUTS, name, b"picture")
    return files.path(Shelf.OUTPUTS, name)


async def test_what_has_expired_goes_with_its_files_and_the_rest_stays(
    collection: GarbageCollection,
    files: FileStore,
    jobs: JobStore,
    claims: ClaimStore,
    alice: Agent,  # noqa: F811
    clock: FakeClock,
) -> None:
    old = [await put_output(files, jobs, claims, alice) for _ in range(2)]
    clock.advance(6 * 86_400)
    young = await put_output(files, jobs, claims, alice)
    clock.advance(2 * 86_400)
    assert (await collection.look()).expired.jobs == 2
    assert all(path.exists() for path in (*old, young))
    done = await collection.collect()
    assert (done.expired.jobs, len(done.expired.files), done.orphans) == (2, 2, ())
    assert [path.exists() for path in (*old, young)] == [False, False, True]
    assert (await collection.look()).expired.jobs == 0


@pytest.mark.parametrize("with_others", [False, True])
async def test_a_file_without_a_row_goes_only_when_nobody_is_left_to_give_it_one(
    collection: GarbageCollection,
    files: FileStore,
    jobs: JobStore,
    claims: ClaimStore,
    alice: Agent,  # noqa: F811
    settings: Settings,
    *,
    with_others: bool,
) -> None:
    await submit(jobs, alice)
    held = await claim(claims)
    kept = await put_output(files, jobs, claims, alice)
    awaited = files.path(Shelf.OUTPUTS, output_disk_name(held.job_id, held.fence))
    awaited.write_bytes(b"a worker holds its job")
    orphan, tmp = files.path(Shelf.OUTPUTS, "lost.png"), files.path(Shelf.INCOMING, "half")
    orphan.write_bytes(b"12345")
    tmp.write_bytes(b"1")
    if with_others:
        with another_process(settings):
            done = await collection.collect()
    else:
        done = await collection.collect()
    assert {(found.disk_name, found.bytes) for found in done.orphans} == {("lost.png", 5), ("half", 1)}
    assert (done.orphans_deleted, done.others) == (not with_others, int(with_others))
    assert (orphan.exists(), tmp.exists()) == (with_others, with_others)
    assert kept.exists()
    assert awaited.exists()


async def test_a_process_that_comes_while_files_are_listed_keeps_its_upload(
    collection: GarbageCollection, files: FileStore, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, others = collection._count_others, []

    def start_then_count() -> int:
        others.append(Presence(settings.storage.data_dir, "1-other"))
        files.publish_bytes(Shelf.REFERENCES, "upload.png", b"its row comes next")
        return count()

    monkeypatch.setattr(collection, "_count_others", start_then_count)
    done = await collection.collect()
    others[0].withdraw()
    assert done.orphans == ()
    assert files.exists(Shelf.REFERENCES, "upload.png")


async def test_only_what_dead_processes_left_in_the_run_directory_goes(
    collection: GarbageCollection, settings: Settings, hints: Hints
) -> None:
    run = settings.storage.data_dir / "run"
    alive = Wakeup(settings.storage.data_dir, Listener.API, "1-alive")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as dead:
        dead.bind(hints._address("infer-1-dead.sock"))
    for name in ("999999999-dead.new", f"{os.getpid()}-born.new"):
        (run / name).touch()
    assert (await collection.look()).leftovers == ("infer-1-dead.sock", "999999999-dead.new")
    await collection.collect()
    names = {path.name for path in run.iterdir() if path.suffix != ".open"}
    assert names == {"api-1-alive.sock", f"{os.getpid()}-born.new"}
    alive.close()


async def test_the_log_of_writes_is_cut_to_nothing(
    collection: GarbageCollection,
    jobs: JobStore,
    alice: Agent,  # noqa: F811
) -> None:
    await submit(jobs, alice)
    shrunk = (await collection.collect()).shrunk
    assert shrunk is not None
    assert shrunk.wal_before_bytes > 0
    assert (shrunk.wal_bytes, shrunk.complete) == (0, True)
    await submit(jobs, alice)


async def test_the_database_is_written_anew_only_when_nobody_else_has_it_open(
    database: Database, collection: GarbageCollection, settings: Settings
) -> None:
    await database.writer.run(lambda c: c.execute("CREATE TABLE bulk AS SELECT zeroblob(1000000) AS hole").fetchall())
    await database.writer.run(lambda c: c.execute("DROP TABLE bulk").fetchall())
    with another_process(settings), pytest.raises(OperatorError, match="stop both first"):
        await collection.collect(shrink=True)
    shrunk = (await collection.collect(shrink=True)).shrunk
    assert shrunk is not None
    assert shrunk.database_before_bytes - shrunk.database_bytes > 900_000 or shrunk.wal_before_bytes > 900_000
    assert shrunk.database_bytes < 500_000


async def test_what_is_written_anew_is_gathered_in_memory_as_the_bound_has_it(database: Database) -> None:
    options = await database.reader.all("PRAGMA compile_options")
    assert "TEMP_STORE=3" in {row[0] for row in options}


async def test_nothing_is_shrunk_without_room_or_while_another_process_is_frozen(
    database: Database, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    low = settings.storage.model_copy(update={"disk_floor_bytes": 2**60})
    with pytest.raises(OperatorError, match="bytes of free disk"):
        vacuum(low)
    scarce = tmp_path / "meminfo"
    scarce.write_text("MemTotal:        8000000 kB\nMemAvailable:         20 kB\n")
    with monkeypatch.context() as patched:
        patched.setattr(footprint, "MEMORY", scarce)
        with pytest.raises(OperatorError, match="bytes of free memory here, there are 20480"):
            vacuum(settings.storage)
    hasty = settings.storage.model_copy(update={"lock_timeout_s": 0.1})
    with nobody_can_write(settings), pytest.raises(Unavailable, match="another process has held"):
        write_back(hasty)
