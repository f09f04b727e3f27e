from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import FakeClock, make_settings
from tests.core.test_claim_store import claim, complete, submit
from tests.core.test_plans import fill
from umrgen_core.claim_store import ClaimStore
from umrgen_core.config import Settings
from umrgen_core.database import Database, open_database
from umrgen_core.footprint import list_processes, read_footprint
from umrgen_core.job_store import JobStore
from umrgen_core.jobs import ErrorCode, JobState
from umrgen_core.overview import MOST_COUNTED, OverviewReader
from umrgen_core.queue_control import QueueControl
from umrgen_core.sqlite import Connection, open_untouched, open_writer
from umrgen_core.statements import load_statements
from umrgen_core.tally import Counting, Spread, spread_stages
from umrgen_core.wakeup import Listener, Wakeup
from umrgen_core.worker_store import WorkerState, WorkerStore

DAY_US = 86_400_000_000
WALKS = {"SCAN waiting", "SCAN q", "SCAN last", "SCAN ended", "SCAN due", "SCAN failed", "SCAN CONSTANT ROW"}
"""What is read of what another step has found, within its limit."""


@pytest.fixture
def overviews(database: Database, settings: Settings, clock: FakeClock) -> OverviewReader:
    return OverviewReader(database.reader, database.statements, clock, settings)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    data_dir = tmp_path_factory.mktemp("filled") / "data"
    connection = open_writer(make_settings(data_dir).storage.database)
    fill(connection)
    yield connection
    connection.close()


async def test_one_look_shows_what_waits_what_runs_and_what_has_ended(
    overviews: OverviewReader, database: Database, jobs: JobStore, claims: ClaimStore, clock: FakeClock, make_agent: Any
) -> None:
    alice, bob = [await make_agent(name, concurrent_jobs=9) for name in ("alice", "bob")]
    await WorkerStore(database).announce("w1", 4711, WorkerState.READY, ["tiny-klein"])
    done = await submit(jobs, alice)
    clock.advance(3)
    held = await claim(claims)
    clock.advance(2)
    await complete(claims, held)
    clock.advance(1)
    failing = await submit(jobs, alice)
    await claims.fail(await claim(claims), ErrorCode.TIMEOUT, "too slow", retryable=True)
    first = await submit(jobs, alice)
    clock.advance(60)
    running = await claim(claims)
    await claims.put_progress(running, 3)
    oldest = await submit(jobs, bob)
    clock.advance(10)
    await submit(jobs, alice)
    await submit(jobs, alice, model="other")

    seen = await overviews.read()
    assert [(line.id, line.agent, line.step, line.steps, line.worker_id) for line in seen.running] == [
        (first, "alice", 3, 4, "w1")
    ]
    assert seen.running[0].lease_left_s == 20
    assert [(line.model, line.jobs, line.agents) for line in seen.queue] == [("tiny-klein", 2, 2), ("other", 1, 1)]
    assert (seen.queue[0].oldest_id, seen.queued) == (oldest, 3)
    assert seen.oldest_queued_at_us == clock.wall_us() - 10_000_000
    failed, completed = seen.finished
    assert (failed.id, failed.state, failed.error_code) == (failing, JobState.FAILED, "timeout")
    assert (completed.id, completed.queued_s, completed.run_s) == (done, 3, 2)
    assert sum(seen.ended_per_minute) == 2
    assert [(line.pid, line.state, line.models, line.age_s) for line in seen.workers] == [
        (4711, WorkerState.READY, ("tiny-klein",), 76)
    ]
    assert (seen.usage.agents, seen.usage.output_bytes) == (2, 1000)
    assert (seen.paused_at_us, seen.draining_at_us) == (None, None)


async def test_a_queue_that_is_paused_and_drains_says_since_when(
    overviews: OverviewReader, database: Database, clock: FakeClock
) -> None:
    control = QueueControl(database)
    await control.pause()
    clock.advance(5)
    await control.drain()
    seen = await overviews.read()
    assert (seen.paused_at_us, seen.draining_at_us) == (clock.wall_us() - 5_000_000, clock.wall_us())


async def test_ends_are_counted_by_the_minute_of_the_last_hour_alone(
    overviews: OverviewReader, jobs: JobStore, claims: ClaimStore, clock: FakeClock, make_agent: Any
) -> None:
    alice = await make_agent("alice", concurrent_jobs=9)
    for pause_s in (3 * 3600, 60, 0, 120):
        await submit(jobs, alice)
        await complete(claims, await claim(claims))
        clock.advance(pause_s)
    counted = (await overviews.read()).ended_per_minute
    assert len(counted) == 60
    assert [(59 - index, jobs) for index, jobs in enumerate(counted) if jobs] == [(3, 1), (2, 2)]


@pytest.mark.parametrize("name", ["running", "queue", "finished", "ended", "webhooks"])
def test_a_look_reads_no_more_than_its_limit(filled: Connection, name: str) -> None:
    sql = getattr(load_statements(), f"overview_{name}").sql
    values = dict.fromkeys(re.findall(r"(?<!:):(\w+)", sql), 1)
    plan = {row["detail"] for row in filled.execute(f"EXPLAIN QUERY PLAN {sql}", values)}
    scans = {step for step in plan if step.startswith("SCAN")} - WALKS
    limited = {"SCAN jobs USING COVERING INDEX jobs_queued"} | {
        f"SCAN webhooks USING COVERING INDEX webhooks_{state}" for state in ("due", "failed")
    }
    assert scans <= limited, plan


def test_a_look_makes_few_steps_however_many_jobs_there_are(filled: Connection) -> None:
    statements, steps = load_statements(), [0]

    def count() -> int:
        steps[0] += 100
        return 0

    for name in ("running", "finished", "usage", "webhooks"):
        sql = getattr(statements, f"overview_{name}").sql
        filled.set_progress_handler(count, 100)
        filled.execute(sql, dict.fromkeys(re.findall(r"(?<!:):(\w+)", sql), 12)).fetchall()
        filled.set_progress_handler(None, 0)
    assert steps[0] < 3000  # there are 10,000 jobs
    assert MOST_COUNTED <= 10_000


async def test_a_period_counts_its_jobs_and_no_others(
    database: Database, jobs: JobStore, claims: ClaimStore, clock: FakeClock, make_agent: Any
) -> None:
    alice, bob = [await make_agent(name, concurrent_jobs=99) for name in ("alice", "bob")]
    for _ in range(3):
        await submit(jobs, alice)
        await complete(claims, await claim(claims))
    clock.advance(86_400)
    began_us = clock.wall_us()
    for agent in (alice, alice, bob):
        await submit(jobs, agent)
        await complete(claims, await claim(claims))
    await submit(jobs, bob)
    await claims.fail(await claim(claims), ErrorCode.TIMEOUT, "too slow", retryable=True)
    await submit(jobs, bob)
    counting = Counting(database.reader, database.statements)

    tally = await counting.count(began_us, clock.wall_us())
    assert (tally.jobs, tally.success) == (5, 0.75)
    assert tally.states == {JobState.COMPLETED: 3, JobState.FAILED: 1, JobState.QUEUED: 1}
    assert tally.agents == {
        "alice": {JobState.COMPLETED: 2},
        "bob": {JobState.COMPLETED: 1, JobState.FAILED: 1, JobState.QUEUED: 1},
    }
    assert tally.failures == {"timeout": 1}
    assert list(tally.per_hour.values()) == [3]
    assert tally.stages == {"tiny-klein": {"total": Spread(3, 2.0, 2.0)}}
    assert tally.oldest_us == began_us - DAY_US
    assert (await counting.count(0, clock.wall_us())).jobs == 8
    assert (await counting.count(clock.wall_us() + 1, clock.wall_us())).jobs == 0


async def test_the_beginning_of_a_period_is_found_though_jobs_were_erased(
    database: Database, jobs: JobStore, clock: FakeClock, make_agent: Any
) -> None:
    alice = await make_agent("alice", concurrent_jobs=99)
    times = []
    for _ in range(40):
        clock.advance(1)
        times.append(clock.wall_us())
        await submit(jobs, alice)
    gone = random.Random(8).sample(range(1, 41), 25)
    await database.writer.run(lambda c: c.execute(f"DELETE FROM jobs WHERE seq IN ({','.join(map(str, gone))})"))
    kept = [us for seq, us in enumerate(times, 1) if seq not in gone]
    for us in (*times, times[0] - 1, times[-1] + 1):
        tally = await Counting(database.reader, database.statements).count(us, clock.wall_us())
        assert tally.jobs == sum(one >= us for one in kept), us


async def test_a_store_without_jobs_has_an_empty_period(database: Database) -> None:
    tally = await Counting(database.reader, database.statements).count(0, 1)
    assert (tally.jobs, tally.success, tally.oldest_us) == (0, None, None)


def test_percentiles_are_values_that_were_measured() -> None:
    spread = spread_stages([{"denoise": float(n), **({"other": 1.0} if n > 98 else {})} for n in range(1, 101)])
    assert spread == {"denoise": Spread(100, 50.0, 95.0), "other": Spread(2, 1.0, 1.0)}


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.endswith("-shm")]
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


@pytest.mark.parametrize("stop", ["clean", "killed"])
def test_looking_at_a_store_changes_no_byte_of_it(tmp_path: Path, stop: str) -> None:
    database = make_settings(tmp_path / "data").storage.database
    code = (
        "import os, sys; from pathlib import Path; from umrgen_core.sqlite import open_writer;"
        "c = open_writer(Path(sys.argv[1])); c.execute('UPDATE queue_control SET paused_at_us = 7');"
        "os._exit(0) if sys.argv[2] == 'killed' else c.close()"
    )
    subprocess.run([sys.executable, "-c", code, str(database), stop], check=True, timeout=30)
    before = snapshot(tmp_path)
    assert (f"{database.name}-wal" in before) == (stop == "killed")
    connection = open_untouched(database)
    assert connection.execute("SELECT paused_at_us FROM queue_control").fetchone()[0] == 7
    connection.close()
    assert snapshot(tmp_path) == before


async def test_processes_are_known_by_their_markers_and_sockets(settings: Settings, clock: FakeClock) -> None:
    data_dir = settings.storage.data_dir
    assert list_processes(data_dir) == []
    async with open_database(settings, clock) as database:
        await WorkerStore(database).announce("w1", 1, WorkerState.READY, [])
        wakeup = Wakeup(data_dir, Listener.API, f"{os.getpid()}-0a0b")
        assert [(one.pid, one.kind) for one in list_processes(data_dir)] == [(os.getpid(), "api")]
        wakeup.close()
        assert [(one.pid, one.kind) for one in list_processes(data_dir)] == [(os.getpid(), "")]
        footprint = read_footprint(settings.storage)
        assert footprint.database_bytes == settings.storage.database.stat().st_size
        assert footprint.wal_bytes > 0
        assert footprint.has_ballast is False
        assert 0 < footprint.free_bytes < footprint.total_bytes
    assert list_processes(data_dir) == []
