from __future__ import annotations

from tests.api.conftest import Server, StartServer
from tests.api.test_common import ask_with
from tests.conftest import FakeClock
from umrgen_core.worker_store import WorkerState

MODELS = ["tiny-klein"]


async def announce(server: Server, state: WorkerState, worker_id: str = "worker-1") -> None:
    await server.services.workers.announce(worker_id, 1, state, MODELS)


async def ask(server: Server) -> tuple[int, list[str]]:
    """Status and reasons of /readyz, asked without a key."""
    status, body, _ = await ask_with(server, {}, "/readyz")
    assert body["success"] is (status == 200)
    reasons: list[str] = body["reasons"]
    return status, reasons


async def test_the_process_is_healthy_without_worker_and_without_key(server: Server) -> None:
    status, body, _ = await ask_with(server, {}, "/healthz")
    assert (status, body["success"]) == (200, True)


async def test_it_is_not_ready_without_a_worker(server: Server) -> None:
    status, reasons = await ask(server)
    assert status == 503
    assert "no worker" in reasons[0]


async def test_it_is_ready_once_a_worker_has_its_model_loaded(server: Server) -> None:
    await announce(server, WorkerState.LOADING)
    status, reasons = await ask(server)
    assert status == 503
    assert "loading" in reasons[0]
    await announce(server, WorkerState.READY)
    assert await ask(server) == (200, [])


async def test_one_ready_worker_is_enough(server: Server) -> None:
    await announce(server, WorkerState.LOADING, "worker-1")
    await announce(server, WorkerState.READY, "worker-2")
    assert await ask(server) == (200, [])


async def test_a_worker_that_stops_is_not_counted_on(server: Server) -> None:
    await announce(server, WorkerState.READY)
    await announce(server, WorkerState.STOPPING)
    assert (await ask(server))[0] == 503
    await announce(server, WorkerState.READY)
    await server.services.workers.withdraw("worker-1")
    assert (await ask(server))[0] == 503


async def test_a_worker_that_is_silent_for_too_long_is_not_counted_on(server: Server, clock: FakeClock) -> None:
    await announce(server, WorkerState.READY)
    clock.advance(30)
    assert (await ask(server))[0] == 200
    clock.advance(0.001)
    assert (await ask(server))[0] == 503
    await announce(server, WorkerState.READY)
    assert (await ask(server))[0] == 200


async def test_how_long_is_too_long_follows_the_heartbeat(start_server: StartServer, clock: FakeClock) -> None:
    server = await start_server(jobs={"heartbeat_s": 1})
    await announce(server, WorkerState.READY)
    clock.advance(3.1)
    assert (await ask(server))[0] == 503


async def test_a_worker_of_another_boot_is_not_counted_on(server: Server, clock: FakeClock) -> None:
    await announce(server, WorkerState.READY)
    clock.reboot()
    assert (await ask(server))[0] == 503


async def test_it_is_not_ready_when_the_schema_changed_underneath(server: Server) -> None:
    await announce(server, WorkerState.READY)
    await server.services.database.writer.run(lambda c: c.execute("PRAGMA user_version = 99"))
    status, reasons = await ask(server)
    assert status == 503
    assert "schema version 99" in reasons[0]
    assert (await ask_with(server, {}, "/healthz"))[0] == 200


async def test_it_is_not_ready_when_the_store_does_not_answer(server: Server) -> None:
    await announce(server, WorkerState.READY)
    await server.services.database.reader.close()
    status, reasons = await ask(server)
    assert status == 503
    assert "store" in reasons[0]
