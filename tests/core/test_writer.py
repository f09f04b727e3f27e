from __future__ import annotations

import asyncio
import fcntl
import gc
import os
import shutil
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from umrgen_core.errors import NotFound, Unavailable
from umrgen_core.lock import LOCK_NAME
from umrgen_core.meter import Meter
from umrgen_core.schema import SCHEMA_VERSION, ensure_store
from umrgen_core.sqlite import Connection, IntegrityError, open_writer
from umrgen_core.writer import MAX_BATCH, Writer

TIMEOUT_S = 0.5


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    ensure_store(tmp_path / "data", tmp_path / "data" / "umrgen.sqlite3")
    return tmp_path / "data"


@pytest.fixture
def path(data_dir: Path) -> Path:
    return data_dir / "umrgen.sqlite3"


async def start(data_dir: Path, path: Path, timeout_s: float) -> Writer:
    writer = Writer(data_dir, path, timeout_s)
    writer.start()
    return writer


@pytest.fixture
async def writer(data_dir: Path, path: Path) -> AsyncIterator[Writer]:
    writer = await start(data_dir, path, 30)
    yield writer
    await writer.close()


@pytest.fixture
async def hasty(data_dir: Path, path: Path) -> AsyncIterator[Writer]:
    """A writer whose callers give up soon."""
    writer = await start(data_dir, path, TIMEOUT_S)
    yield writer
    await writer.close()


@contextmanager
def lock_of_another_process(data_dir: Path) -> Iterator[None]:
    """An flock belongs to an open file: one of our own excludes the writer as another process does."""
    fd = os.open(data_dir / LOCK_NAME, os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(fd)


async def run_together(data_dir: Path, *calls: Coroutine[Any, Any, Any]) -> list[Any]:
    """Results and errors of calls that all waited for the lock at the same time."""
    with lock_of_another_process(data_dir):
        tasks = [asyncio.create_task(call) for call in calls]
        await asyncio.sleep(0)  # each has put its work into the queue now
    return await asyncio.gather(*tasks, return_exceptions=True)


def add_agent(connection: Connection, name: str) -> str:
    connection.execute(
        "INSERT INTO agents (name, session_id, created_at_us) VALUES (?, 'sid_ext_' || ?, 0)", [name] * 2
    )
    return name


def list_agents(path: Path) -> list[str]:
    connection = open_writer(path)
    try:
        return [row["name"] for row in connection.execute("SELECT name FROM agents ORDER BY id")]
    finally:
        connection.close()


async def test_the_result_of_the_work_is_returned_once_it_is_on_disk(writer: Writer, path: Path) -> None:
    assert await writer.run(lambda c: add_agent(c, "a")) == "a"
    assert list_agents(path) == ["a"]


@pytest.mark.parametrize(("works", "commits"), [(MAX_BATCH, 1), (MAX_BATCH + 1, 2)])
async def test_work_that_waits_together_is_committed_together_up_to_a_limit(
    writer: Writer, data_dir: Path, path: Path, works: int, commits: int
) -> None:
    statements: list[str] = []
    await writer.run(lambda c: c.set_trace_callback(statements.append))
    statements.clear()
    results = await run_together(data_dir, *(writer.run(partial(add_agent, name=str(n))) for n in range(works)))
    assert results == [str(n) for n in range(works)] == list_agents(path)
    assert statements[0] == "BEGIN IMMEDIATE"
    assert statements.count("COMMIT") == commits


class _Batches(Meter):
    """How many items each transaction had."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def wrote(self, items: int, lock_wait_s: float, took_s: float) -> None:
        self.sizes.append(items)


async def test_what_is_asked_for_in_one_round_of_the_event_loop_is_one_transaction(data_dir: Path, path: Path) -> None:
    batches = _Batches()
    writer = Writer(data_dir, path, 30, batches)
    writer.start()

    async def ask() -> int:
        time.sleep(0.005)  # noqa: ASYNC251 - what a request costs before its write: the writer could begin meanwhile
        return await writer.run(lambda connection: connection.total_changes)

    for _ in range(4):
        await asyncio.gather(*(ask() for _ in range(5)))
    await writer.close()
    assert sum(batches.sizes) == 20
    assert batches.sizes.count(5) > 1  # the machine may take this thread's turn away while it hands over


async def test_one_callers_error_undoes_that_callers_work_alone(writer: Writer, data_dir: Path, path: Path) -> None:
    def refuse(connection: Connection) -> None:
        add_agent(connection, "refused")
        raise NotFound("no")

    def break_rule(connection: Connection) -> None:
        add_agent(connection, "broken")
        add_agent(connection, "broken")

    def stumble(connection: Connection) -> None:
        add_agent(connection, "stumbled")
        raise ZeroDivisionError

    good = [partial(add_agent, name=name) for name in "ab"]
    works = [good[0], refuse, break_rule, stumble, good[1]]
    results = await run_together(data_dir, *(writer.run(work) for work in works))
    assert [results[0], results[4]] == ["a", "b"]
    assert [type(result) for result in results[1:4]] == [NotFound, IntegrityError, ZeroDivisionError]
    assert list_agents(path) == ["a", "b"]


async def test_nobody_is_answered_before_the_commit(writer: Writer, data_dir: Path, path: Path) -> None:
    seen: list[list[str]] = []

    async def add_and_look(name: str) -> None:
        await writer.run(lambda c: add_agent(c, name))
        seen.append(list_agents(path))

    await run_together(data_dir, *(add_and_look(name) for name in "abc"))
    assert seen == [["a", "b", "c"]] * 3


async def test_work_that_was_given_up_is_never_run(hasty: Writer, data_dir: Path, path: Path) -> None:
    with lock_of_another_process(data_dir), pytest.raises(Unavailable, match="nothing was written"):
        await hasty.run(lambda c: add_agent(c, "late"))
    await hasty.run(lambda c: add_agent(c, "next"))
    assert list_agents(path) == ["next"]


async def test_a_write_that_has_begun_is_never_said_not_to_have_happened(hasty: Writer, path: Path) -> None:
    def dawdle(connection: Connection) -> None:
        add_agent(connection, "slow")
        time.sleep(TIMEOUT_S * 1.5)  # longer than the caller waits

    with pytest.raises(Unavailable, match="did not confirm the write; ask for its outcome"):
        await hasty.run(dawdle)
    await hasty.run(lambda c: add_agent(c, "next"))
    assert list_agents(path) == ["slow", "next"]


async def test_the_lock_is_held_while_a_transaction_is_open(writer: Writer, data_dir: Path) -> None:
    fd = os.open(data_dir / LOCK_NAME, os.O_RDWR)

    def is_locked(_: object) -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False

    assert await writer.run(is_locked)
    assert not is_locked(None)
    os.close(fd)


async def test_a_schema_that_changes_underneath_makes_the_store_unavailable(writer: Writer, path: Path) -> None:
    await writer.run(lambda c: add_agent(c, "before"))
    other = open_writer(path)
    other.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    with pytest.raises(Unavailable, match="being upgraded"):
        await writer.run(lambda c: add_agent(c, "during"))
    other.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
    other.close()
    await writer.run(lambda c: add_agent(c, "after"))
    assert list_agents(path) == ["before", "after"]


@pytest.mark.parametrize("spoil", ["PRAGMA query_only=ON", "PRAGMA max_page_count=1"])  # read-only; a full disk
async def test_a_store_that_takes_no_writes_fails_the_batch_and_is_opened_anew(
    writer: Writer, data_dir: Path, path: Path, spoil: str
) -> None:
    await writer.run(lambda c: add_agent(c, "before"))
    await writer.run(lambda c: c.execute(spoil).fetchall())
    works = [lambda c: add_agent(c, "x" * 99_999), lambda _: None]
    for result in await run_together(data_dir, *(writer.run(work) for work in works)):
        assert isinstance(result, Unavailable)
        assert "cannot take writes now" in result.message
    await writer.run(lambda c: add_agent(c, "after"))
    assert list_agents(path) == ["before", "after"]


async def test_a_connection_that_was_closed_is_replaced(writer: Writer, path: Path) -> None:
    await writer.run(lambda c: add_agent(c, "before"))
    writer._connection.close()
    with pytest.raises(Unavailable):
        await writer.run(lambda c: add_agent(c, "during"))
    await writer.run(lambda c: add_agent(c, "after"))
    assert list_agents(path) == ["before", "after"]


async def test_a_database_that_is_gone_makes_the_store_unavailable_until_it_is_back(
    data_dir: Path, path: Path, tmp_path: Path
) -> None:
    shutil.move(path, tmp_path / "away")
    writer = await start(data_dir, path, 30)
    with pytest.raises(Unavailable, match="cannot take writes now"):
        await writer.run(lambda c: add_agent(c, "during"))
    shutil.move(tmp_path / "away", path)
    await writer.run(lambda c: add_agent(c, "after"))
    await writer.close()
    assert list_agents(path) == ["after"]


async def test_what_waits_at_the_end_is_still_written_and_nothing_is_taken_after(data_dir: Path, path: Path) -> None:
    writer = await start(data_dir, path, 30)
    waiting = asyncio.create_task(writer.run(lambda c: add_agent(c, "last")))
    await asyncio.sleep(0)
    await writer.close()
    assert await waiting == "last"
    with pytest.raises(Unavailable, match="stopping; nothing was written"):
        await writer.run(lambda c: add_agent(c, "later"))
    assert list_agents(path) == ["last"]
    assert not writer._thread.is_alive()


async def test_a_writer_that_another_process_blocks_can_be_left_behind(data_dir: Path, path: Path) -> None:
    writer = await start(data_dir, path, TIMEOUT_S)
    with lock_of_another_process(data_dir):
        with pytest.raises(Unavailable):
            await writer.run(lambda c: add_agent(c, "late"))
        await writer.close()
    writer._thread.join(10)
    assert not writer._thread.is_alive()
    assert list_agents(path) == []


async def test_an_error_whose_caller_was_cancelled_is_nobodys_and_is_not_logged(
    writer: Writer, data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_: Connection) -> None:
        raise NotFound("gone")

    with lock_of_another_process(data_dir):
        task = asyncio.create_task(writer.run(refuse))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
    await writer.run(lambda _: None)  # what was in the queue before it has been answered
    del task  # with the frames that still know of the error
    gc.collect()
    assert caplog.records == []
