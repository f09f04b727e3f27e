"""A web tier that is killed under its clients and started again."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conftest import DEVELOPMENT_KEY
from tests.e2e.conftest import Stack, wait_until
from umrgen_client import Client, Retry, Unreachable


def test_whoever_waits_or_listens_does_not_notice_a_restart(tmp_path: Path) -> None:
    with ExitStack() as exits, ThreadPoolExecutor() as threads:
        service = Stack(tmp_path / "data", exits)
        api = service.start_api()
        service.environment["UMRGEN_API__PORT"] = service.url.rpartition(":")[2]
        with Client(service.url, DEVELOPMENT_KEY) as client:
            job = client.generate("a red circle")
            seen: list[int] = []
            waiting = threads.submit(client.wait, job.id, 60, check=False)
            listening = threads.submit(lambda: [seen.append(event.id) or event for event in client.events(job.id)])
            wait_until(lambda: bool(seen), 10)
            api.stop(signal.SIGKILL)
            meanwhile = threads.submit(client.generate, "a blue circle", idempotency_key="once")
            service.start_api()
            client.cancel(job.id)
            assert waiting.result(30).state == "cancelled"
            events = listening.result(30)
            assert [event.kind for event in events] == ["state", "done"]
            assert events[0].id < events[1].id
            accepted = meanwhile.result(30)
            assert client.generate("a blue circle", idempotency_key="once").id == accepted.id


def test_a_service_that_is_gone_is_an_error_soon_enough() -> None:
    with (
        Client("http://127.0.0.1:1", DEVELOPMENT_KEY, retry=Retry(outage_s=0.5)) as client,
        pytest.raises(Unreachable, match=r"127\.0\.0\.1:1") as error,
    ):
        client.me()
    assert error.value.code == "unreachable"
