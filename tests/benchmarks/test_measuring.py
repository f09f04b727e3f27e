"""What the measurements rest on: foreign processor time, clients in a process of their own, ticks, filled stores."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from benchmarks.cpu import read_cpu_s, read_family_cpu_s
from benchmarks.load import STAMP, Ask, Load, run_load
from benchmarks.service import running_yardstick
from benchmarks.stores import add_expired, open_store, opened
from benchmarks.ticking import PERIOD_S, Ticks, read_lateness_ms, tick
from umrgen_core.clock import SystemClock
from umrgen_core.config import Settings
from umrgen_core.database import open_database
from umrgen_core.retention_store import RetentionStore

SPIN = "import time, sys\nwhile time.process_time() < 0.3: pass\nprint('spun', flush=True)\nsys.stdin.read()"


def test_processor_time_of_another_process_is_what_it_says_itself() -> None:
    with subprocess.Popen([sys.executable, "-c", SPIN], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as spinning:
        assert spinning.stdout
        spinning.stdout.readline()
        spent_s = read_cpu_s(spinning.pid)
        assert 0.3 <= spent_s < 0.4
        assert read_family_cpu_s(spinning.pid) == pytest.approx(spent_s, abs=0.01)
        spinning.communicate()


def test_clients_send_what_they_are_told_and_count_what_they_get(tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(bytes(200_000))
    with running_yardstick(tmp_path) as server:
        asks = [Ask("/"), Ask("/static/picture.png")]
        answers = run_load(Load(server.port, [asks] * 3, 30))
        assert answers.statuses == {200: 30}
        assert len(answers.latencies_s) == 30
        assert answers.percentile_ms(0) > 0
        assert answers.per_s > 0
        with pytest.raises(SystemExit, match="404"):
            run_load(Load(server.port, [[Ask("/nothing")]], 1))


def test_each_request_is_stamped_anew() -> None:
    ask = Ask("/", "POST", "key", b"before" + STAMP + b"after")
    first, second = ask.encode("host"), ask.encode("host")
    assert first != second
    assert STAMP not in first
    assert len(first) == len(second)
    assert f"Content-Length: {len(ask.body)}\r\n".encode() in first


async def test_a_stall_counts_for_every_tick_that_it_held_up(tmp_path: Path) -> None:
    ticks: Ticks = []
    ticking = asyncio.create_task(tick(ticks))
    await asyncio.sleep(0)  # the first tick
    began = time.monotonic()
    while time.monotonic() < began + 0.1:
        """Hold the loop up."""
    await asyncio.sleep(PERIOD_S)
    ticking.cancel()
    with suppress(asyncio.CancelledError):
        await ticking
    late = [seconds for due, seconds in ticks if began <= due < began + 0.1]
    assert len(late) == pytest.approx(0.1 / PERIOD_S, abs=2)
    assert max(late) > 0.09
    assert max(late) - min(late) == pytest.approx(0.1, abs=0.01)
    report = tmp_path / "ticks.json"
    report.write_text(str([list(moment) for moment in ticks]))
    assert read_lateness_ms(report, began, began + 0.1, 50) == pytest.approx(sorted(late)[len(late) // 2] * 1000, abs=5)


async def sweep_twice(settings: Settings) -> list[int]:
    async with open_database(settings, SystemClock()) as database:
        await database.integrity.wait()
        return [len(await RetentionStore(database).expire()) for _ in range(2)]


def test_a_filled_store_is_whole_and_what_expires_in_it_is_swept(tmp_path: Path) -> None:
    with open_store(tmp_path, 1000) as store:
        with opened(store.box, writes=False) as connection:
            states = dict(connection.execute("SELECT state, count(*) FROM jobs GROUP BY state").fetchall())
            owners = connection.execute("SELECT count(DISTINCT agent_id), count(*) FROM jobs").fetchone()
            broken = connection.execute("PRAGMA foreign_key_check").fetchall()
        assert states == {"queued": 100, "failed": 100, "completed": 800}
        assert tuple(owners) == (20, 1000)
        assert not broken
        assert len(store.list_own_completed(10)) >= 10
        add_expired(store.box, 7, "once")
        assert asyncio.run(sweep_twice(store.box.settings)) == [7, 0]
    with open_store(tmp_path, 1000) as again:
        assert again.keys == store.keys
