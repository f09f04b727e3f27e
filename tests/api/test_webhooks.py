"""Ends of jobs as their agents are told of them: by a real server, verified by the library that agents use."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

from tests.api.conftest import Server, StartServer
from tests.api.test_status import accept, claim, complete_next
from tests.api.webhook_receiver import Receiver, open_receiver, wait_for
from tests.conftest import FakeClock, make_settings
from tests.core.test_job_store import submit
from umrgen_api.webhook_sender import Sender
from umrgen_api.webhooks import Deliveries
from umrgen_core.agent_store import AgentStore
from umrgen_core.agents import Agent
from umrgen_core.cancellation import Cancellation
from umrgen_core.config import Settings
from umrgen_core.database import Database, open_database
from umrgen_core.job_store import JobStore
from umrgen_core.keys import mint_key
from umrgen_core.webhook_secrets import GRACE_S, derive_secret, read_master
from umrgen_core.webhook_store import WebhookState, WebhookStore
from umrgen_core.webhooks import JITTER, MAX_ATTEMPTS, RETRY_DELAYS_S

OPEN = {"allow_private": True, "allow_http": True, "timeout_s": 5}


class Office:
    """The outbox and what empties it, beside a receiver; no web tier that would empty it too."""

    def __init__(self, settings: Settings, database: Database, receiver: Receiver) -> None:
        self.database, self.settings, self.receiver = database, settings, receiver
        self.store = WebhookStore(database)
        self.deliveries = Deliveries(settings, database, Sender(settings.webhooks), lambda: 0.0)

    async def round(self) -> int:
        """Everything that is due, once; how many attempts."""
        begun = await self.deliveries.begin_due()
        await self.deliveries.settle()
        return begun

    async def rows(self) -> list[Any]:
        return await self.store.list_newest(None)

    def secret(self, session_id: str, version: int = 1) -> Webhook:
        return Webhook(derive_secret(read_master(self.settings.secret_path), session_id, version))


@asynccontextmanager
async def open_office(folder: Path, clock: FakeClock, answer: Any = 200, **webhooks: Any) -> AsyncIterator[Office]:
    settings = make_settings(folder / "data", webhooks={**OPEN, **webhooks}, limits={"concurrent_jobs": 1000})
    async with open_database(settings, clock) as database, open_receiver(answer) as receiver:
        yield Office(settings, database, receiver)


async def end_jobs(office: Office, agent: str, count: int = 1, path: str = "/hook") -> list[str]:
    """Jobs of an agent that were cancelled, with a callback."""
    agents, key = AgentStore(office.database, office.settings.limits), mint_key()
    await agents.create_agent(agent, f"sid_ext_{agent}", key)
    owner = await agents.find_by_key(key)
    assert isinstance(owner, Agent)
    jobs, cancellation = JobStore(office.database, office.settings), Cancellation(office.database, 86_400 * 7)
    ids = []
    for _ in range(count):
        job, _ = await submit(jobs, owner, callback_url=office.receiver.url(path=path))
        await cancellation.cancel(owner, job.id)
        ids.append(job.id)
    return ids


def at_real_time(clock: FakeClock) -> FakeClock:
    """The verifier reads the machine's clock."""
    clock.wall = time.time_ns() // 1000
    return clock


async def test_a_webhook_verifies_with_the_agents_secret_and_no_other(tmp_path: Path, clock: FakeClock) -> None:
    async with open_office(tmp_path, at_real_time(clock)) as office:
        (job_id,) = await end_jobs(office, "alice")
        assert await office.round() == 1
        ((headers, body),) = office.receiver.heard
        told = office.secret("sid_ext_alice").verify(body, headers)
        assert (told["type"], told["data"]["job_id"], told["data"]["state"]) == ("job.cancelled", job_id, "cancelled")
        assert told["timestamp"] == told["data"]["finished_at"]
        assert headers["webhook-id"] == f"msg_{job_id}"
        assert headers["webhook-timestamp"] == str(clock.wall // 1_000_000)
        assert headers["Content-Type"] == "application/json"
        for stranger in (office.secret("sid_ext_bob"), office.secret("sid_ext_alice", 2)):
            with pytest.raises(WebhookVerificationError):
                stranger.verify(body, headers)
        with pytest.raises(WebhookVerificationError):
            office.secret("sid_ext_alice").verify(body + b" ", headers)
        (row,) = await office.rows()
        assert (row["state"], row["attempts"], row["outcome"]) == ("delivered", 1, "answered 200")
        assert await office.round() == 0


async def test_after_a_change_of_the_secret_both_verify_for_a_day(tmp_path: Path, clock: FakeClock) -> None:
    async with open_office(tmp_path, at_real_time(clock)) as office:
        (job_id,) = await end_jobs(office, "alice")
        await office.store.get_secret_version("alice", rotate=True)
        old, new = office.secret("sid_ext_alice", 1), office.secret("sid_ext_alice", 2)
        await office.round()
        headers, body = office.receiver.heard[-1]
        assert old.verify(body, headers) == new.verify(body, headers)
        await office.database.writer.run(
            lambda c: c.execute("UPDATE agents SET webhook_rotated_at_us = ?", [clock.wall - GRACE_S * 1_000_000])
        )
        await office.store.replay(job_id)
        await office.round()
        headers, body = office.receiver.heard[-1]
        new.verify(body, headers)
        with pytest.raises(WebhookVerificationError):
            old.verify(body, headers)


async def test_attempts_follow_the_schedule_under_one_id_and_then_stop(tmp_path: Path, clock: FakeClock) -> None:
    async with open_office(tmp_path, clock, 500) as office:
        (job_id,) = await end_jobs(office, "alice")
        assert await office.round() == 1
        for delay_s in RETRY_DELAYS_S:
            clock.advance(delay_s - 0.1)
            assert await office.round() == 0
            clock.advance(0.1)
            assert await office.round() == 1
        clock.advance(1e6)
        assert await office.round() == 0
        assert office.receiver.ids == [f"msg_{job_id}"] * MAX_ATTEMPTS
        assert len({body for _, body in office.receiver.heard}) == 1
        stamps = [int(headers["webhook-timestamp"]) for headers, _ in office.receiver.heard]
        assert stamps == sorted(set(stamps))
        (row,) = await office.rows()
        assert (row["state"], row["attempts"], row["outcome"]) == ("failed", MAX_ATTEMPTS, "answered 500")


async def test_a_receiver_that_recovers_gets_it_and_hears_no_more(tmp_path: Path, clock: FakeClock) -> None:
    async with open_office(tmp_path, clock, 503) as office:
        await end_jobs(office, "alice")
        await office.round()
        office.receiver.answer = 204
        clock.advance(RETRY_DELAYS_S[0])
        assert await office.round() == 1
        clock.advance(1e6)
        assert await office.round() == 0
        assert (await office.rows())[0]["state"] == "delivered"


async def test_410_ends_it_at_once(tmp_path: Path, clock: FakeClock) -> None:
    async with open_office(tmp_path, clock, 410) as office:
        await end_jobs(office, "alice")
        await office.round()
        clock.advance(1e6)
        assert await office.round() == 0
        assert [(row["state"], row["attempts"]) for row in await office.rows()] == [("failed", 1)]


async def test_an_attempt_that_dies_of_an_error_of_our_own_counts_and_waits_its_turn(
    tmp_path: Path, clock: FakeClock
) -> None:
    async def look_up(host: str, _: int) -> list[str]:
        raise RuntimeError(f"no thread for {host}")

    async with open_office(tmp_path, clock) as office:
        sound = office.deliveries
        office.deliveries = Deliveries(office.settings, office.database, Sender(office.settings.webhooks, look_up))
        (job_id,) = await end_jobs(office, "alice")
        await office.database.writer.run(lambda c: c.execute("UPDATE jobs SET callback_url = 'http://agent.example/'"))
        with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as logs:
            assert await office.round() == 1
        (told,) = [entry for entry in logs if entry["event"] == "internal_error"]
        assert (told["job_id"], told["error_type"], "look_up" in told["where"]) == (job_id, "RuntimeError", True)
        assert "agent.example" not in repr(logs)
        assert "webhook_delayed" in [entry["event"] for entry in logs]
        (row,) = await office.rows()
        assert (row["state"], row["attempts"], row["outcome"]) == ("due", 1, "internal error")
        for delay_s in RETRY_DELAYS_S:
            assert await office.round() == 0
            clock.advance(delay_s * (1 + JITTER))
            assert await office.round() == 1
        (row,) = await office.rows()
        assert (row["state"], row["attempts"]) == ("failed", MAX_ATTEMPTS)
        await office.database.writer.run(
            lambda c: c.execute("UPDATE jobs SET callback_url = ?", [office.receiver.url()])
        )
        office.deliveries = sound
        await office.store.replay(job_id)
        await office.round()
        assert office.receiver.ids == [f"msg_{job_id}"]


async def test_a_replay_sends_the_same_again_with_a_new_timestamp(tmp_path: Path, clock: FakeClock) -> None:
    async with open_office(tmp_path, clock, 410) as office:
        await end_jobs(office, "alice", 2)
        await office.round()
        office.receiver.answer = 200
        clock.advance(3600)
        assert await office.store.replay_failed() == 2
        assert await office.round() == 2
        first, again = office.receiver.heard[:2], office.receiver.heard[2:]
        assert sorted(h["webhook-id"] for h, _ in first) == sorted(h["webhook-id"] for h, _ in again)
        assert sorted(body for _, body in first) == sorted(body for _, body in again)
        assert {int(h["webhook-timestamp"]) for h, _ in again} == {clock.wall // 1_000_000}
        assert {row["state"] for row in await office.rows()} == {"delivered"}


async def test_a_slow_receiver_holds_up_its_own_agent_alone(tmp_path: Path, clock: FakeClock) -> None:
    released = asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        if request.path == "/slow":
            await released.wait()
        return web.Response()

    async with open_office(tmp_path, clock, answer, concurrent_attempts=8) as office:
        await end_jobs(office, "alice", 10, "/slow")
        quick = await end_jobs(office, "bob", 3)
        begun = 0
        while more := await office.deliveries.begin_due():
            begun += more
        assert begun == 4  # a quarter of eight for each
        await wait_for(lambda: sorted(office.receiver.paths) == ["/hook", "/hook", "/slow", "/slow"])
        office.deliveries.start()
        try:
            await wait_for(lambda: {f"msg_{job}" for job in quick} <= set(office.receiver.ids))
            assert office.receiver.paths.count("/slow") == 2
            released.set()
            await wait_for(lambda: office.receiver.paths.count("/slow") == 10)
        finally:
            await office.deliveries.stop()


async def test_what_is_under_way_when_it_stops_is_tried_again(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("umrgen_api.webhooks.STOP_GRACE_S", 0.1)

    async def hang(_: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    async with open_office(tmp_path, clock, hang) as office:
        await end_jobs(office, "alice")
        await office.deliveries.begin_due()
        await wait_for(lambda: bool(office.receiver.heard))
        await office.deliveries.stop()
        assert (await office.rows())[0]["state"] == "due"
        office.receiver.answer = 200
        assert await office.round() == 0
        clock.advance(OPEN["timeout_s"] + 2 * office.settings.storage.lock_timeout_s + 1)
        assert await office.round() == 1
        assert len(set(office.receiver.ids)) == 1


async def test_after_a_reboot_what_waited_is_told_at_once(tmp_path: Path, clock: FakeClock) -> None:
    async with open_office(tmp_path, clock, 500) as office:
        await end_jobs(office, "alice")
        await office.round()
        clock.reboot()
        office.receiver.answer = 200
        office.deliveries.start()
        await wait_for(lambda: len(office.receiver.heard) == 2)
        await office.deliveries.stop()
        assert [(row["state"], row["attempts"]) for row in await office.rows()] == [("delivered", 2)]


async def test_a_master_that_cannot_be_used_stops_nothing_but_webhooks(tmp_path: Path, clock: FakeClock) -> None:
    async with open_office(tmp_path, clock) as office:
        office.settings.secret_path.write_bytes(b"short")
        await end_jobs(office, "alice")
        with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as logs:
            office.deliveries.start()
            await wait_for(lambda: any(entry["event"] == "webhooks_unsigned" for entry in logs))
        await office.deliveries.stop()
        assert [(row["state"], row["attempts"]) for row in await office.rows()] == [("due", 0)]


async def start(start_server: StartServer, clock: FakeClock, **sections: Any) -> Server:
    at_real_time(clock)
    return await start_server(webhooks=OPEN, limits={"concurrent_jobs": 9}, **sections)


async def test_the_web_tier_tells_of_every_kind_of_end(start_server: StartServer, clock: FakeClock) -> None:
    async with open_receiver() as receiver:
        server = await start(start_server, clock)
        done = await accept(server, callback_url=receiver.url(path="/done?a=b"))
        await complete_next(server)
        failed = await accept(server, callback_url=receiver.url())
        await server.services.claims.fail(await claim(server), "model_error", "Broken.", retryable=False)
        dropped = await accept(server, callback_url=receiver.url())
        await server.call("DELETE", f"/api/v1/jobs/{dropped}")
        untold = await accept(server)
        await server.call("DELETE", f"/api/v1/jobs/{untold}")
        await wait_for(lambda: len(receiver.heard) == 3)
        secret = derive_secret(read_master(server.services.settings.secret_path), "sid_ext_gen", 1)
        told = {}
        for headers, body in receiver.heard:
            message = Webhook(secret).verify(body, headers)
            told[message["data"]["job_id"]] = message
        assert [told[job]["type"] for job in (done, failed, dropped)] == [
            "job.completed",
            "job.failed",
            "job.cancelled",
        ]
        for job_id, message in told.items():
            assert message["data"] == (await server.call("GET", f"/api/v1/status/{job_id}"))[1]


async def test_a_hint_is_enough_to_tell_of_an_end(
    start_server: StartServer, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("umrgen_api.webhooks.POLL_S", 3600)
    async with open_receiver() as receiver:
        server = await start(start_server, clock)
        job_id = await accept(server, callback_url=receiver.url())
        await server.call("DELETE", f"/api/v1/jobs/{job_id}")
        await wait_for(lambda: bool(receiver.heard))


async def test_pictures_are_absolute_where_the_public_address_is_known(
    start_server: StartServer, clock: FakeClock
) -> None:
    public = {"api": {"public_url": "https://umrgen.example"}, "auth": {"development_key_public": True}}
    async with open_receiver() as receiver:
        server = await start(start_server, clock, **public)
        await accept(server, callback_url=receiver.url())
        output = await complete_next(server)
        await wait_for(lambda: bool(receiver.heard))
        url = json.loads(receiver.heard[0][1])["data"]["image_url"]
        assert url.startswith(f"https://umrgen.example/outputs/sid_ext_gen/{output.filename}?session_id=")
        await accept(server, reference_images=[url])  # and serves as a reference as it stands


async def test_status_shows_the_callback_and_the_first_answer_is_replayed_for_the_same_one_alone(
    start_server: StartServer, clock: FakeClock
) -> None:
    server = await start(start_server, clock)
    url = "https://agent.example/hook?token=%7Ex"
    body = {"prompt": "a star", "callback_url": url}

    async def submit(**changes: object) -> tuple[int, Any, dict[str, str]]:
        return await server.call(
            "POST", "/api/v1/generate", json={**body, **changes}, headers={"Idempotency-Key": "one"}
        )

    status, first, _ = await submit()
    assert (status, first["ignored"]) == (202, [])
    assert (await submit())[1] == first
    assert (await submit(callback_url=url + "y"))[0] == 409
    assert (await server.call("GET", first["status_url"]))[1]["callback_url"] == url
    without = await accept(server)
    assert (await server.call("GET", f"/api/v1/status/{without}"))[1]["callback_url"] is None


async def test_a_callback_that_may_not_be_is_a_problem_of_its_field(server: Server) -> None:
    for url in ("http://agent.example/", "https://127.0.0.1/", "https://u:p@agent.example/", 7, "x" * 2049):
        status, body, _ = await server.generate(callback_url=url)
        assert (status, body["code"]) == (400, "invalid_request")
        assert [problem["field"] for problem in body["errors"]] == ["callback_url"]


async def test_a_callback_is_in_no_log_and_a_secret_in_neither_log_nor_store(
    start_server: StartServer, clock: FakeClock, tmp_path: Path
) -> None:
    with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as logs:
        async with open_receiver(500) as receiver:
            server = await start(start_server, clock)
            job_id = await accept(server, callback_url=receiver.url(path="/hush-hush"))
            await server.call("DELETE", f"/api/v1/jobs/{job_id}")
            await wait_for(lambda: any(entry["event"] == "webhook_delayed" for entry in logs))
    (told,) = [entry for entry in logs if entry["event"] == "webhook_delayed"]
    assert (told["job_id"], told["attempt"], told["outcome"]) == (job_id, 1, "answered 500")
    master = read_master(server.services.settings.secret_path)
    secret = derive_secret(master, "sid_ext_gen", 1)
    assert "hush-hush" not in repr(logs)
    for word in (master.decode(), secret, secret.removeprefix("whsec_")):
        assert word not in repr(logs)
        for path in (tmp_path / "data").rglob("*"):
            if path.is_file() and path != server.services.settings.secret_path:
                assert word.encode() not in path.read_bytes(), path


async def test_what_an_erased_job_would_have_told_is_not_told(tmp_path: Path, clock: FakeClock) -> None:
    async with open_office(tmp_path, clock) as office:
        (job_id,) = await end_jobs(office, "alice")
        await office.database.writer.run(lambda c: c.execute("DELETE FROM jobs WHERE id = ?", [job_id]))
        assert await office.round() == 0
        assert await office.rows() == []
        assert await office.store.list_newest(WebhookState.DUE) == []
