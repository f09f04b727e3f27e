"""Every hostile file through the real application: a clean copy or a 400 with its reason, and nothing else."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from PIL import Image

from tests.api.conftest import HEADERS, Server, StartServer
from tests.api.test_upload import fetch, list_incoming
from tests.conftest import picture_bytes
from tests.hostile.build import chunk, deflated, ihdr, png, png_bytes
from tests.hostile.case import Case, Fate
from tests.hostile.corpus import MAX_FILE_BYTES, case, corpus
from umrgen_api.image_headers import RefusedImage, read_header

QUICK = [known for known in corpus() if not known.slow]
SLOW = [
    case("40 Mpx: PNG of 16-bit RGBA, interlaced"),
    case("40 Mpx: JPEG of 64 scans"),
    case("40 Mpx: WebP with a profile"),
]
BATCHES = [QUICK[start : start + 25] for start in range(0, len(QUICK), 25)]
FREELY = {"rate_per_minute": 100_000, "reads_per_minute": 100_000, "references": 10_000}
OF_EVERY_FILE = {"jfif", "jfif_version", "jfif_unit", "jfif_density", "background", "loop", "duration", "timestamp"}
LONGEST_PAUSE_S = 0.5
"""A pause of the event loop that a waiting client would notice; the machine's other work is within it."""


@asynccontextmanager
async def probing(server: Server) -> AsyncIterator[list[float]]:
    """Asks for the health of the server all the while; the seconds that each answer took."""
    pauses: list[float] = []

    async def probe(session: aiohttp.ClientSession) -> None:
        while True:
            began = time.monotonic()
            async with session.get("/healthz") as response:
                assert response.status == 200
            pauses.append(time.monotonic() - began)
            await asyncio.sleep(0.02)

    async with aiohttp.ClientSession(server.url, headers=HEADERS) as session:
        task = asyncio.create_task(probe(session))
        try:
            yield pauses
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def judge(server: Server, hostile: Case) -> str:
    """What is wrong with the answer to this file; nothing when it is empty."""
    data = await asyncio.to_thread(hostile.make)
    assert len(data) <= MAX_FILE_BYTES, hostile.name
    status, body, _ = await server.upload(data, hostile.filename)
    if list_incoming(server):
        return f"left {list_incoming(server)} behind"
    if hostile.fate is Fate.TAKEN:
        return await find_dirt(server, body) if status == 200 else f"{status} {body}"
    if (status, body.get("code"), bool(body.get("reason"))) != (400, "invalid_image", True):
        return f"{status} {body}"
    died = "time or memory" in body["reason"]
    return "" if died == (hostile.fate is Fate.LIMIT) else f"the child died: {body}"


async def find_dirt(server: Server, body: dict[str, object]) -> str:
    """What is wrong with the stored copy."""
    status, stored, _ = await fetch(server, str(body["url"]))
    if status != 200:
        return f"stored, but answered {status}"
    image = Image.open(io.BytesIO(stored))
    image.load()
    if image.size != (body["width"], body["height"]) or image.mode not in ("RGB", "RGBA"):
        return f"stored as {image.mode} of {image.size}"
    if not set(image.info) <= OF_EVERY_FILE or dict(image.getexif()):
        return f"stored with {set(image.info)}"
    return "" if getattr(image, "n_frames", 1) == 1 else "stored with frames"


async def find_faults(server: Server, cases: list[Case]) -> dict[str, str]:
    faults = {hostile.name: await judge(server, hostile) for hostile in cases}
    return {name: fault for name, fault in faults.items() if fault}


@pytest.mark.parametrize("batch", BATCHES, ids=[batch[0].name for batch in BATCHES])
async def test_a_hostile_file_is_cleaned_or_refused_and_the_server_lives_on(
    start_server: StartServer, batch: list[Case]
) -> None:
    server = await start_server(limits=FREELY)
    async with probing(server) as pauses:
        assert await find_faults(server, batch) == {}
    assert max(pauses, default=0) < LONGEST_PAUSE_S
    assert (await server.upload(picture_bytes()))[0] == 200


@pytest.mark.parametrize("hostile", SLOW, ids=lambda hostile: hostile.name)
async def test_while_the_costliest_files_are_decoded_others_are_answered(
    start_server: StartServer, hostile: Case
) -> None:
    server = await start_server(limits=FREELY)
    async with probing(server) as pauses:
        assert await judge(server, hostile) == ""
    assert max(pauses) < LONGEST_PAUSE_S


@pytest.mark.parametrize("hostile", [known for known in QUICK if known.fate is Fate.HEADER], ids=lambda h: h.name)
def test_what_the_header_tells_needs_no_decoder_and_less_than_a_second(hostile: Case) -> None:
    data = hostile.make()
    began = time.thread_time()
    with pytest.raises(RefusedImage):
        read_header(data)
    assert time.thread_time() - began < 1


@pytest.mark.parametrize("fate", [Fate.TAKEN, Fate.DECODER])
def test_what_needs_a_decoder_passes_the_header(fate: Fate) -> None:
    for hostile in QUICK:
        if hostile.fate is fate:
            read_header(hostile.make())


def test_every_file_has_a_name_of_its_own_and_is_the_same_each_time() -> None:
    names = [known.filename for known in corpus()]
    assert len(set(names)) == len(names)
    unlike = [known.name for known in QUICK[::7] if known.make() != known.make()]
    assert unlike == []


SECRET = (201, 99, 173)


async def test_pixels_that_a_file_lacks_are_never_those_of_another_upload(start_server: StartServer) -> None:
    server = await start_server(uploads={"processes": 1}, limits=FREELY)
    for hostile in (png(ihdr(1500, 1500), idat=deflated(99)), case("a JPEG that claims 8192x4882 px").make()):
        secret = io.BytesIO()
        Image.new("RGB", (1500, 1500), SECRET).save(secret, "PNG")
        assert (await server.upload(secret.getvalue() + bytes(len(hostile) % 7)))[0] == 200
        status, body, _ = await server.upload(hostile)
        if status == 200:
            image = Image.open(io.BytesIO((await fetch(server, body["url"]))[1])).convert("RGB")
            assert SECRET not in {colour for _, colour in image.getcolors(1 << 24)}


async def test_a_header_that_the_decoder_does_not_follow_is_refused(start_server: StartServer) -> None:
    server = await start_server(limits=FREELY)
    second = png(ihdr(96, 80), before=chunk(b"IHDR", ihdr(64, 64)), idat=deflated(png_bytes(64, 64)))
    status, body, _ = await server.upload(second)
    assert (status, body["code"]) == (400, "invalid_image")
    assert "64x64" in body["reason"]
