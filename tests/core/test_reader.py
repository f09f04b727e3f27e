"""The reader: what waits goes in one hop, and each caller gets what is its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from umrgen_core import reader as reader_module
from umrgen_core.errors import Unavailable
from umrgen_core.meter import Meter
from umrgen_core.reader import MOST_TOGETHER, Reader, fetch_one
from umrgen_core.sqlite import Connection, open_writer


class _Hops(Meter):
    """How often the store was read, and failed to be."""

    def __init__(self) -> None:
        self.reads = 0
        self.failures = 0

    def read(self, took_s: float) -> None:
        self.reads += 1

    def read_failed(self) -> None:
        self.failures += 1


class _Uncommon(BaseException):
    """No Exception."""


@pytest.fixture
def meter() -> _Hops:
    return _Hops()


@pytest.fixture
async def reader(tmp_path: Path, meter: _Hops) -> AsyncIterator[Reader]:
    database = tmp_path / "store.db"
    database.touch()
    connection = open_writer(database)
    connection.execute("CREATE TABLE numbers (value INTEGER)")
    connection.execute("INSERT INTO numbers VALUES (7)")
    connection.close()
    reader = Reader(database, meter=meter)
    await reader.open()
    yield reader
    await reader.close()


@pytest.fixture
def hops(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many reads each hop was given."""
    given: list[int] = []
    together = reader_module._do_together

    def count(reads: list[object], connection: Connection) -> int:
        given.append(len(reads))
        return together(reads, connection)  # type: ignore[arg-type]

    monkeypatch.setattr(reader_module, "_do_together", count)
    return given


def _take(turns: list[int], own: int, _: Connection) -> int:
    turns.append(own)
    return own


def _read_seven(connection: Connection) -> int:
    row = fetch_one(connection, "SELECT value FROM numbers")
    assert row is not None
    return int(row["value"])


async def test_reads_that_wait_go_together_and_each_gets_its_own_answer(reader: Reader, hops: list[int]) -> None:
    answers = await asyncio.gather(*(reader.run(partial(_take, [], number)) for number in range(MOST_TOGETHER + 5)))
    assert answers == list(range(MOST_TOGETHER + 5))
    assert hops == [MOST_TOGETHER, 5]


async def test_a_read_that_fails_fails_alone(reader: Reader, meter: _Hops) -> None:
    wrong = reader.all("SELECT * FROM nowhere")
    first, refused, last = await asyncio.gather(
        reader.run(_read_seven), wrong, reader.run(_read_seven), return_exceptions=True
    )
    assert (first, last) == (7, 7)
    assert isinstance(refused, Unavailable)
    assert (meter.reads, meter.failures) == (2, 1)


async def test_a_bug_in_one_read_reaches_its_caller_alone(reader: Reader) -> None:
    def divide(_: Connection) -> float:
        return 1 / 0

    broken, good = await asyncio.gather(reader.run(divide), reader.run(_read_seven), return_exceptions=True)
    assert isinstance(broken, ZeroDivisionError)
    assert good == 7


@pytest.mark.parametrize("raised", [StopIteration, _Uncommon, asyncio.CancelledError])
async def test_what_no_read_should_raise_costs_its_neighbours_nothing(
    reader: Reader, raised: type[BaseException]
) -> None:
    def misbehave(_: Connection) -> None:
        raise raised

    broken, good = asyncio.ensure_future(reader.run(misbehave)), asyncio.ensure_future(reader.run(_read_seven))
    done, _ = await asyncio.wait({broken, good}, timeout=10)
    assert done == {broken, good}
    assert good.result() == 7
    assert broken.cancelled() or isinstance(broken.exception(), RuntimeError | _Uncommon)
    assert await reader.run(_read_seven) == 7


async def test_a_close_that_is_given_up_leaves_nobody_waiting(reader: Reader) -> None:
    goes_on = threading.Event()
    slow = asyncio.ensure_future(reader.run(lambda _: goes_on.wait(10)))
    await asyncio.sleep(0)
    closing = asyncio.ensure_future(reader.close())
    await asyncio.sleep(0)
    closing.cancel()
    goes_on.set()
    done, waiting = await asyncio.wait({slow, closing}, timeout=10)
    assert not waiting
    assert closing in done


async def test_a_read_beyond_the_time_of_a_hop_puts_off_those_behind_it(
    reader: Reader, hops: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader_module, "TOGETHER_S", 0.0)  # so that every read takes too long
    goes_on = threading.Event()
    first = asyncio.ensure_future(reader.run(_read_seven))
    second = asyncio.ensure_future(reader.run(lambda connection: goes_on.wait(10) and _read_seven(connection)))
    assert await first == 7
    assert not second.done()
    goes_on.set()
    assert await second == 7
    assert hops == [2, 1]


async def test_what_is_put_off_keeps_its_turn(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "TOGETHER_S", 0.0)
    turns: list[int] = []
    await asyncio.gather(*(reader.run(partial(_take, turns, number)) for number in range(5)))
    assert turns == [0, 1, 2, 3, 4]


async def test_a_caller_that_is_cancelled_leaves_the_others_their_answers(reader: Reader) -> None:
    gone = asyncio.ensure_future(reader.run(_read_seven))
    kept = asyncio.ensure_future(reader.run(_read_seven))
    await asyncio.sleep(0)
    gone.cancel()
    assert await kept == 7
    with pytest.raises(asyncio.CancelledError):
        await gone


async def test_a_reader_that_closes_answers_those_who_wait(reader: Reader) -> None:
    waiting = [asyncio.ensure_future(reader.run(_read_seven)) for _ in range(3)]
    await asyncio.sleep(0)
    await reader.close()
    assert await asyncio.gather(*waiting) == [7, 7, 7]
    with pytest.raises(Unavailable):
        await reader.run(_read_seven)


async def test_a_refusing_reader_says_why(reader: Reader) -> None:
    reader.refuse("Later.")
    with pytest.raises(Unavailable, match="Later"):
        await reader.run(_read_seven)
    reader.refuse(None)
    assert await reader.run(_read_seven) == 7
