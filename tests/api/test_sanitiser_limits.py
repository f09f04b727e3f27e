from __future__ import annotations

import asyncio
import io
import os
import random
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.api.test_sanitiser import FORMATS, clean, encode, gradient, swapped_profile
from tests.conftest import ROOT, picture_bytes
from umrgen_api.image_headers import RefusedImage
from umrgen_api.sanitiser import sanitise
from umrgen_api.sanitiser_pool import SanitiserPool
from umrgen_core.errors import InvalidImage, Unavailable
from umrgen_core.sections import UploadSettings


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def with_chunks(extra: bytes) -> bytes:
    """A PNG with more chunks behind its header."""
    picture = picture_bytes()
    return picture[:33] + extra + picture[33:]


def with_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan is repeated."""
    picture = encode(gradient(), "JPEG", progressive=True)
    last = picture[picture.rindex(b"\xff\xda") : -2]
    return picture[:-2] + last * (count - picture.count(b"\xff\xda")) + picture[-2:]


def vast_webp(width: int, height: int) -> bytes:
    """34 bytes that claim to be a lossless WebP of this size."""
    bits = (width - 1) | (height - 1) << 14
    return struct.pack("<4sI4s4sIBI", b"RIFF", 26, b"WEBP", b"VP8L", 14, 0x2F, bits) + bytes(9)


def animation(image_format: str) -> bytes:
    frames = [gradient().rotate(90 * turn) for turn in range(2)]
    return encode(frames[0], image_format, save_all=True, append_images=frames[1:])


def half(image_format: str) -> bytes:
    picture = picture_bytes(image_format=image_format)
    return picture[: len(picture) // 2]


BOMB = zlib.compress(bytes(200_000_000), 9)
HOSTILE = {
    "nothing": (b"", "not a PNG"),
    "text": (b"<svg/>" * 100, "not a PNG"),
    "a GIF": (encode(gradient(), "GIF"), "not a PNG"),
    "a BMP": (encode(gradient(), "BMP"), "not a PNG"),
    "a TIFF": (encode(gradient(), "TIFF"), "not a PNG"),
    "too small": (picture_bytes(63, 64), "at least 64"),
    "too long": (encode(Image.new("L", (8193, 64))), "at most 8192"),
    "too large": (encode(Image.new("L", (8192, 4883))), "at most 40000000"),
    "an animated WebP": (animation("WEBP"), "animated"),
    "an animated PNG": (animation("PNG"), "animated"),
    "a JPEG of 65 scans": (with_scans(65), "64 scans"),
    "a PNG of 300,000 chunks": (with_chunks(chunk(b"tEXt", b"a\0b") * 300_000), "chunks"),
    "a bomb of text": (with_chunks(chunk(b"zTXt", b"a\0\0" + BOMB)), "damaged"),
    "a bomb of a profile": (with_chunks(chunk(b"iCCP", b"a\0\0" + BOMB)), "damaged"),
    "a vast WebP": (vast_webp(16384, 16384), "at most"),
    "a large WebP of nothing": (vast_webp(8192, 4800), ""),
    "half a PNG": (half("PNG"), "damaged"),
    "half a JPEG": (half("JPEG"), "damaged"),
    "half a WebP": (half("WEBP"), "damaged"),
    "signatures alone": (b"\x89PNG\r\n\x1a\n", "damaged"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_with_its_reason(name: str) -> None:
    data, expected = HOSTILE[name]
    began = time.process_time()
    with pytest.raises(RefusedImage, match=expected):
        sanitise(data, io.BytesIO())
    assert time.process_time() - began < 2


def test_a_jpeg_of_64_scans_is_still_taken() -> None:
    assert clean(with_scans(64))[0].size == (96, 64)


@pytest.mark.parametrize("image_format", FORMATS)
def test_a_damaged_file_is_refused_or_repaired_and_never_breaks_the_decoder(image_format: str) -> None:
    choose, picture = random.Random(1), picture_bytes(64, 64, image_format)
    refused = 0
    for _ in range(150):
        damaged = bytearray(picture)
        for _ in range(choose.randrange(1, 8)):
            place = choose.choice([choose.randrange(64), choose.randrange(len(damaged))])
            damaged[place] = choose.randrange(256)
        try:
            sanitise(bytes(damaged), io.BytesIO())
        except RefusedImage:
            refused += 1
    assert refused > 0


class Pool:
    """A pool of one child."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.pool = SanitiserPool(UploadSettings(processes=1, **settings))
        self._source, self._output = folder / "source", folder / "output"

    async def clean(self, data: bytes) -> str:
        """The format of the cleaned picture."""
        self._source.write_bytes(data)
        self._output.write_bytes(b"")
        return (await self.pool.sanitise(self._source, self._output)).format

    def proc(self, name: str) -> Path:
        """What the kernel tells of the child."""
        return Path(f"/proc/{self.pid}/{name}")

    @property
    def pid(self) -> int:
        [child] = [*self.pool._idle, *self.pool._busy]
        return child._process.pid


@pytest.fixture
async def pool(tmp_path: Path) -> AsyncIterator[Pool]:
    opened = Pool(tmp_path, timeout_s=3)
    await opened.clean(picture_bytes())
    yield opened
    await opened.pool.close()


async def test_everything_that_works_in_process_works_in_the_child(pool: Pool) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    every: list[dict[str, Any]] = [{"icc_profile": swapped_profile()}, {"xmp": b"<x/>"}, {"exif": exif}]
    for image_format in FORMATS:
        for options in every:
            assert await pool.clean(encode(gradient(), image_format, **options)) == image_format.lower()
    for mode in ("CMYK", "L"):
        assert await pool.clean(encode(gradient().convert(mode), "JPEG", progressive=True)) == "jpeg"
    for mode in ("I;16", "P", "LA", "1"):
        assert await pool.clean(encode(gradient().convert("L").convert(mode))) == "png"


async def test_the_child_has_nothing_open_but_its_channel_and_may_open_nothing_more(pool: Pool) -> None:
    lines = pool.proc("limits").read_text().splitlines()
    limits = {line[:25].strip(): line[25:].split()[:2] for line in lines}
    assert limits["Max open files"] == ["5", "5"]
    assert limits["Max core file size"] == ["0", "0"]
    assert limits["Max address space"] == [str(1 << 30)] * 2
    assert limits["Max file size"] == [str(64 << 20)] * 2
    assert limits["Max cpu time"][0] != "unlimited"
    assert sorted(path.name for path in pool.proc("fd").iterdir()) == ["0", "1", "2"]


async def test_a_child_that_hangs_is_replaced_and_the_next_upload_works(pool: Pool) -> None:
    first = pool.pid
    os.kill(first, signal.SIGSTOP)
    with pytest.raises(InvalidImage, match="time or memory"):
        await pool.clean(picture_bytes())
    assert await pool.clean(picture_bytes()) == "png"
    assert pool.pid != first
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)


@pytest.mark.parametrize(
    ("number", "error"),
    [(signal.SIGXCPU, InvalidImage), (signal.SIGSEGV, InvalidImage), (signal.SIGTERM, Unavailable),
     (signal.SIGKILL, Unavailable)],
)  # fmt: skip
async def test_a_child_that_ends_at_work_is_replaced_and_only_its_own_end_is_the_pictures_fault(
    pool: Pool, number: signal.Signals, error: type[Exception]
) -> None:
    first = pool.pid
    os.kill(first, signal.SIGSTOP)
    running = asyncio.create_task(pool.clean(picture_bytes()))
    while not pool.pool._busy:  # noqa: ASYNC110 - nothing tells
        await asyncio.sleep(0)
    os.kill(first, number)
    os.kill(first, signal.SIGCONT)
    with pytest.raises(error, match=r"time or memory|in the middle"):
        await running
    assert await pool.clean(picture_bytes()) == "png"
    assert pool.pid != first


async def test_a_child_that_died_while_idle_costs_no_upload(pool: Pool) -> None:
    first = pool.pid
    os.kill(first, signal.SIGKILL)
    await asyncio.to_thread(os.waitid, os.P_PID, first, os.WEXITED | os.WNOWAIT)
    assert await pool.clean(picture_bytes()) == "png"


async def test_a_picture_that_takes_too_much_memory_is_refused_and_the_next_upload_works(tmp_path: Path) -> None:
    small = Pool(tmp_path, memory_bytes=256 << 20)
    with pytest.raises(InvalidImage, match="memory"):
        await small.clean(encode(Image.new("RGB", (8000, 5000))))
    assert await small.clean(picture_bytes()) == "png"
    await small.pool.close()


async def test_a_crowd_is_told_to_come_again(tmp_path: Path) -> None:
    crowded = Pool(tmp_path, waiting=1)
    answers = await asyncio.gather(*(crowded.clean(picture_bytes()) for _ in range(3)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [str, Unavailable, Unavailable]
    await crowded.pool.close()


PARENT = """
import asyncio, sys
from pathlib import Path
from tests.api.test_sanitiser_limits import Pool, picture_bytes
async def main():
    pool = Pool(Path(sys.argv[1]))
    await pool.clean(picture_bytes())
    print(pool.pid, flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""


def test_the_child_dies_with_its_parent(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PARENT, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as parent:
        assert parent.stdout is not None
        child = Path("/proc") / parent.stdout.readline().strip() / "cmdline"
        assert b"umrgen_api.sanitiser" in child.read_bytes()
        parent.kill()
    deadline = time.monotonic() + 10
    while child.exists() and child.read_bytes() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not child.exists() or not child.read_bytes()


async def test_a_file_that_cannot_be_opened_costs_no_child(pool: Pool, tmp_path: Path) -> None:
    for _ in range(3):
        with pytest.raises(OSError, match="No such file"):
            await pool.pool.sanitise(tmp_path / "gone", tmp_path / "gone")
    assert not pool.pool._busy
    assert await pool.clean(picture_bytes()) == "png"


async def test_a_channel_that_breaks_is_answered_and_not_taken_for_a_client_that_left(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await pool.clean(picture_bytes()) == "png"

    async def break_channel(*_: object) -> None:
        raise ConnectionResetError

    with monkeypatch.context() as patched:
        patched.setattr("umrgen_api.sanitiser_pool._Child.sanitise", break_channel)
        with pytest.raises(InvalidImage):
            await pool.clean(picture_bytes())
    assert await pool.clean(picture_bytes()) == "png"
