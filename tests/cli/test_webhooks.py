"""The owner's view of webhooks, and the secrets that sign them."""

from __future__ import annotations

import asyncio
import base64
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.api.conftest import StartServer, start_server  # noqa: F401 - a fixture
from tests.api.test_status import accept
from tests.api.webhook_receiver import open_receiver, wait_for
from tests.cli.test_accounts import admin  # noqa: F401 - a fixture

OPEN = {"allow_private": True, "allow_http": True}


async def tell(server: Any, url: str) -> str:
    """Let a job end; its id."""
    job_id = await accept(server, callback_url=url)
    await server.call("DELETE", f"/api/v1/jobs/{job_id}")
    return job_id


async def test_what_was_given_up_is_listed_and_replayed(admin, start_server: StartServer) -> None:  # noqa: F811
    async with open_receiver(410) as receiver:
        server = await start_server(webhooks=OPEN)
        first, second = [await tell(server, receiver.url(path="/hush-hush")) for _ in range(2)]
        await wait_for(lambda: len(receiver.heard) == 2)
        reader = server.services.database.reader
        async with asyncio.timeout(10):
            while len(await reader.all("SELECT 1 FROM webhooks WHERE state = 'failed'")) < 2:  # noqa: ASYNC110 - outside
                await asyncio.sleep(0.01)
        listed = admin("webhooks", "list", "--state", "failed")
        for word in (f"msg_{first}", f"msg_{second}", "development", "job.cancelled", "127.0.0.1", "answered 410"):
            assert word in listed
        assert "hush-hush" not in listed
        receiver.answer = 200
        assert admin("webhooks", "replay", first) == f"due again: msg_{first}\n"
        await wait_for(lambda: len(receiver.heard) == 3)
        assert receiver.ids[2] == f"msg_{first}"
        assert admin("webhooks", "replay", "--failed") == "due again: 1\n"
        await wait_for(lambda: len(receiver.heard) == 4)
        assert receiver.ids[3] == f"msg_{second}"


def test_an_agents_secret_is_the_same_until_it_is_changed(admin, tmp_path: Path) -> None:  # noqa: F811
    admin("agents", "create", "alice")
    first = admin("agents", "webhook-secret", "alice")
    assert len(base64.b64decode(first.strip().removeprefix("whsec_"))) == 32
    second = admin("agents", "webhook-secret", "alice", "--rotate")
    assert second.startswith("whsec_")
    assert second != first
    assert admin("agents", "webhook-secret", "alice") == second
    assert stat.S_IMODE((tmp_path / "data" / "secret").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("agents", "webhook-secret", "nobody"), "no agent called 'nobody'"),
        (("webhooks", "replay", "msg_ext_1"), "no webhook 'msg_ext_1'"),
        (("webhooks", "replay"), "name one webhook, or --failed"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(admin, arguments: tuple[str, ...], said: str) -> None:  # noqa: F811
    complaint = admin(*arguments, status=1)
    assert said in complaint
    assert len(complaint.splitlines()) == 1
