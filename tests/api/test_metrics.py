"""What the web tier counts of requests and uploads, and that no request makes a series of its own."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from tests.api.conftest import Server, StartServer
from tests.conftest import picture_bytes
from umrgen_api.app import METRICS
from umrgen_api.fates import Fate
from umrgen_api.sanitiser_pool import SanitiserPool
from umrgen_core.errors import InvalidImage
from umrgen_core.sections import UploadSettings

HOSTILE = [
    ("GET", "/nowhere/%00"),
    ("GET", "/metrics"),
    ("BREW", "/api/v1/status/x"),
    ("PROPFIND", "/api/v1/nowhere"),
    ("POST", "/outputs/sid_ext_evil/umrgen_1.png"),
    ("GET", "/api/v1/jobs?state=evil&limit=-1"),
    ("GET", "/v1/models/evil"),
]


def registry_of(server: Server) -> CollectorRegistry:
    return server.app[METRICS].registry


async def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


def list_series(registry: CollectorRegistry) -> set[str]:
    """Every series but those of the store's state, which come with time."""
    return {
        f"{sample.name}{sorted(sample.labels.items())}"
        for family in registry.collect()
        for sample in family.samples
        if family.name != "umrgen_jobs"
    }


async def test_requests_are_counted_by_their_route(server: Server) -> None:
    _, accepted, _ = await server.generate()
    for _ in range(3):
        await server.call("GET", accepted["status_url"])
    await server.call("GET", f"{accepted['status_url']}?wait=0.01")
    await server.call("GET", "/api/v1/status/ext_unknown")
    read = registry_of(server).get_sample_value
    route = {"route": "/api/v1/status/{job_id}"}
    assert read("umrgen_http_requests_total", {**route, "method": "GET", "status": "2xx"}) == 4
    assert read("umrgen_http_requests_total", {**route, "method": "GET", "status": "4xx"}) == 1
    assert read("umrgen_http_request_seconds_count", route) == 4  # but not the one that waited
    assert read("umrgen_http_refused_total", {"code": "job_not_found"}) == 1
    assert read("umrgen_jobs_accepted_total", {"model": "tiny-klein"}) == 1
    await server.call("DELETE", f"/api/v1/jobs/{accepted['job_id']}")
    await server.call("DELETE", f"/api/v1/jobs/{accepted['job_id']}")
    cancelled = {"model": "tiny-klein", "state": "cancelled", "error_code": ""}
    assert read("umrgen_jobs_ended_total", cancelled) == 1


async def test_a_replay_is_no_new_job(server: Server) -> None:
    for _ in range(2):
        await server.call("POST", "/api/v1/generate", json={"prompt": "a star"}, headers={"Idempotency-Key": "one"})
    assert registry_of(server).get_sample_value("umrgen_jobs_accepted_total", {"model": "tiny-klein"}) == 1


async def test_who_waits_is_shown(server: Server) -> None:
    _, accepted, _ = await server.generate()
    waiting = asyncio.create_task(server.call("GET", f"{accepted['status_url']}?wait=20"))
    await wait_until(lambda: registry_of(server).get_sample_value("umrgen_http_waiting") == 1)
    await server.call("DELETE", f"/api/v1/jobs/{accepted['job_id']}")
    await waiting
    assert registry_of(server).get_sample_value("umrgen_http_waiting") == 0


async def test_nothing_that_a_client_sends_makes_a_series(server: Server) -> None:
    async def be_hostile(word: str) -> None:
        for method, path in HOSTILE:
            async with server.session.request(method, path.replace("evil", word)) as response:
                await response.read()
        for body in ({"prompt": word, "model": word}, {"prompt": f"porn {word}"}, {word: word}):
            await server.call("POST", "/api/v1/generate", json=body, headers={"X-Request-ID": word, "User-Agent": word})
        await server.upload(word.encode(), f"{word}.png")

    await be_hostile("evil")
    before = list_series(registry_of(server))
    for n in range(3):
        await be_hostile(f"worse{n}")
    assert list_series(registry_of(server)) == before
    assert not [series for series in before if "evil" in series or "BREW" in series]
    read = registry_of(server).get_sample_value
    refused = {"route": "/api/v1/status/{job_id}", "method": "other", "status": "4xx"}
    assert read("umrgen_http_requests_total", refused) is None  # the router sends another method nowhere
    assert read("umrgen_http_requests_total", {"route": "none", "method": "other", "status": "4xx"}) >= 4


async def test_metrics_are_never_on_the_port_of_the_api(start_server: StartServer) -> None:
    server = await start_server(metrics={"api_listen": "127.0.0.1:0"})
    status, _, _ = await server.call("GET", "/metrics")
    assert status == 404


@pytest.mark.parametrize(
    ("content", "fate"),
    [(picture_bytes(), Fate.ACCEPTED), (b"no picture", Fate.NO_IMAGE), (picture_bytes(width=8), Fate.SIZE),
     (picture_bytes()[:200], Fate.DAMAGED)],
    ids=["accepted", "no image", "size", "damaged"],
)  # fmt: skip
async def test_uploads_are_counted_by_their_fate(server: Server, content: bytes, fate: Fate) -> None:
    await server.upload(content)
    for one in Fate:
        counted = registry_of(server).get_sample_value("umrgen_uploads_sanitised_total", {"result": one})
        assert counted == (one is fate), one
    assert registry_of(server).get_sample_value("umrgen_upload_sanitise_seconds_count") == 1


async def test_a_child_that_says_nothing_was_killed_or_too_slow(tmp_path: Path) -> None:
    source, output = tmp_path / "in.png", tmp_path / "out.png"
    source.write_bytes(picture_bytes(2000, 2000))
    output.touch()
    fates: list[Fate] = []
    for settings in (UploadSettings(processes=1, timeout_s=0.001), UploadSettings(processes=1, waiting=1)):
        pool = SanitiserPool(settings, lambda fate, _: fates.append(fate))
        if not fates:
            with pytest.raises(InvalidImage):
                await pool.sanitise(source, output)
        else:
            under_way = asyncio.create_task(pool.sanitise(source, output))
            await wait_until(lambda pool=pool: bool(pool._busy))
            next(iter(pool._busy))._process.send_signal(signal.SIGXCPU)
            with pytest.raises(InvalidImage):
                await under_way
        await pool.close()
    assert fates == [Fate.TIMED_OUT, Fate.KILLED]
