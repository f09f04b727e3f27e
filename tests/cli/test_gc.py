"""Throwing away on demand, while the web tier serves and while it does not."""

from __future__ import annotations

import json
from pathlib import Path

from tests.api.conftest import StartServer, start_server  # noqa: F401 - a fixture
from tests.api.test_status import accept, complete_next
from tests.cli.owner import Owner, owner  # noqa: F401 - a fixture


def put_orphan(data_dir: Path) -> Path:
    folder = data_dir / "files" / "outputs"
    folder.mkdir(parents=True, exist_ok=True)
    orphan = folder / "lost.png"
    orphan.write_bytes(b"12345")
    return orphan


async def test_beside_a_web_tier_what_has_expired_goes_and_files_are_left_to_it(
    start_server: StartServer,  # noqa: F811
    owner: Owner,  # noqa: F811
    clock,
    tmp_path: Path,
) -> None:
    server = await start_server()
    clock.wall = 1  # what ends now has expired for a clock that is right
    job_id = await accept(server)
    await complete_next(server)
    orphan = put_orphan(tmp_path / "data")
    looked = await owner("gc", "--dry-run")
    for words in ("expired: 1 job,", "1 in outputs (5 bytes); left alone", "nothing was changed"):
        assert words in looked
    assert (await server.call("GET", f"/api/v1/status/{job_id}"))[0] == 200
    assert "stop both first" in await owner("gc", "--vacuum", status=1)
    assert "deleted as expired: 1 job," in await owner("gc")
    assert (await server.call("GET", f"/api/v1/status/{job_id}"))[0] == 404
    assert orphan.exists()


async def test_alone_it_deletes_lost_files_and_shrinks_the_store(owner: Owner, tmp_path: Path) -> None:  # noqa: F811
    orphan = put_orphan(tmp_path / "data")
    assert "1 in outputs (5 bytes)\n" in await owner("gc", "--dry-run")
    assert orphan.exists()
    told = json.loads(await owner("gc", "--vacuum", "--json"))
    assert told["orphans"] == [{"shelf": "outputs", "disk_name": "lost.png", "bytes": 5}]
    assert (told["orphans_deleted"], told["store"]["wal_bytes"]) == (True, 0)
    assert not orphan.exists()
    assert "goes with no --vacuum" in await owner("gc", "--dry-run", "--vacuum", status=1)
