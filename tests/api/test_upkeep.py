from __future__ import annotations

import asyncio
import os
from typing import Any

from tests.api.conftest import Server, StartServer
from tests.api.test_cancel import complete, start_one
from tests.conftest import FakeClock, picture_bytes
from umrgen_api.orphans import OrphanSweep
from umrgen_api.upkeep import Upkeep
from umrgen_core.files import Shelf
from umrgen_core.names import output_disk_name

WEEK_S = 7 * 86_400


async def sweep_all(orphans: OrphanSweep) -> None:
    """One walk over every shelf: a round lists, the next looks."""
    await orphans.sweep()
    await orphans.sweep()


async def test_job_output_and_file_expire_together(server: Server, clock: FakeClock) -> None:
    upkeep = Upkeep(server.services)
    claim, job_id = await start_one(server)
    await complete(server, claim)
    clock.advance(WEEK_S - 1)
    await upkeep.expire()
    assert (await server.call("GET", f"/api/v1/status/{job_id}"))[0] == 200
    clock.advance(2)
    await upkeep.expire()
    assert await server.services.database.reader.all("SELECT 1 FROM jobs UNION ALL SELECT 1 FROM outputs") == []
    assert not server.services.files.exists(Shelf.OUTPUTS, f"{job_id}.png")


async def test_what_a_live_job_names_does_not_expire(server: Server, clock: FakeClock) -> None:
    upkeep = Upkeep(server.services)
    claim, job_id = await start_one(server)
    await complete(server, claim)
    _, uploaded, _ = await server.upload(picture_bytes())
    image_url = (await server.call("GET", f"/api/v1/status/{job_id}"))[1]["image_url"]
    _, live, _ = await server.generate(reference_images=[image_url, uploaded["filename"]])
    clock.advance(WEEK_S + 10)
    await upkeep.expire()
    counts = await server.services.database.reader.one(
        'SELECT (SELECT count(*) FROM outputs) AS outputs, (SELECT count(*) FROM "references") AS uploads'
    )
    assert (counts["outputs"], counts["uploads"]) == (1, 1)
    await server.call("DELETE", f"/api/v1/jobs/{live['job_id']}")
    await upkeep.expire()
    counts = await server.services.database.reader.one(
        'SELECT (SELECT count(*) FROM outputs) AS outputs, (SELECT count(*) FROM "references") AS uploads'
    )
    assert (counts["outputs"], counts["uploads"]) == (0, 0)


async def test_retention_pauses_while_the_wall_clock_has_leapt(server: Server, clock: FakeClock) -> None:
    upkeep = Upkeep(server.services)
    _, accepted, _ = await server.generate()
    await server.call("DELETE", f"/api/v1/jobs/{accepted['job_id']}")
    clock.wall += (WEEK_S + 10) * 1_000_000  # wall time alone: nobody waited a week
    await upkeep.expire()
    rows = await server.services.database.reader.all("SELECT id FROM jobs")
    assert [row["id"] for row in rows] == [accepted["job_id"]]
    clock.boot += (WEEK_S + 10) * 1000
    await upkeep.expire()
    assert await server.services.database.reader.all("SELECT id FROM jobs") == []


async def test_an_orphan_is_deleted_only_when_it_is_older_than_every_deadline(server: Server, clock: FakeClock) -> None:
    services, orphans = server.services, OrphanSweep(server.services)
    claim, job_id = await start_one(server)
    await complete(server, claim)
    await asyncio.to_thread(services.files.publish_bytes, Shelf.OUTPUTS, "orphan.png", b"x")
    incoming = services.files.path(Shelf.INCOMING, "left-behind")
    incoming.write_bytes(b"x")
    await sweep_all(orphans)
    clock.advance(60)
    await sweep_all(orphans)
    assert services.files.exists(Shelf.OUTPUTS, "orphan.png")
    clock.advance(3600)
    await sweep_all(orphans)
    assert not services.files.exists(Shelf.OUTPUTS, "orphan.png")
    assert not incoming.exists()
    assert services.files.exists(Shelf.OUTPUTS, f"{job_id}.png")


async def test_a_picture_whose_claim_is_held_is_no_orphan_however_old(server: Server, clock: FakeClock) -> None:
    services, orphans = server.services, OrphanSweep(server.services)
    claim, job_id = await start_one(server)
    name = output_disk_name(job_id, claim.fence)
    await asyncio.to_thread(services.files.publish_bytes, Shelf.OUTPUTS, name, b"picture")
    for _ in range(3):
        await sweep_all(orphans)
        clock.advance(3600)
    assert services.files.exists(Shelf.OUTPUTS, name)
    await services.recovery.recover_lost()
    for _ in range(3):
        await sweep_all(orphans)
        clock.advance(3600)
    assert not services.files.exists(Shelf.OUTPUTS, name)


async def test_the_scrub_finds_a_damaged_file_that_nobody_asks_for(server: Server, caplog: Any) -> None:
    services, upkeep = server.services, Upkeep(server.services)
    claim, job_id = await start_one(server)
    await complete(server, claim)
    path = services.files.path(Shelf.OUTPUTS, f"{job_id}.png")
    status = path.stat()
    path.write_bytes(b"picturE")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    await upkeep.scrub()
    assert not services.verified.is_whole(Shelf.OUTPUTS, f"{job_id}.png", claim.job.id)
    assert upkeep._scrubbed[Shelf.OUTPUTS] > 0
    await upkeep.scrub()
    assert upkeep._scrubbed[Shelf.OUTPUTS] == 0  # the walk begins anew


async def test_below_the_floor_nothing_new_is_accepted_and_reads_go_on(start_server: StartServer) -> None:
    server = await start_server(storage={"disk_floor_bytes": 1 << 49})
    for status, body, _ in (await server.generate(), await server.upload(picture_bytes())):
        assert (status, body["code"]) == (503, "unavailable")
        assert body["retry_after"] > 0
    assert (await server.call("GET", "/api/v1/references"))[0] == 200
    _, body, _ = await server.call("GET", "/readyz")
    assert body["reasons"] == ["the disk is nearly full"]
