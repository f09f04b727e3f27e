"""Mutated pictures: the decoder's child refuses or repairs each and lives on; the reader of headers only refuses."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.hostile import icc
from tests.hostile.build import after_soi, chunk, encode, icc_pieces, noise, segment, tiff, vp8x, webp_payload
from tests.hostile.build import riff as webp
from umrgen_api.image_headers import MAX_AREA_PX, MAX_SIDE_PX, MIN_SIDE_PX, RefusedImage, read_header
from umrgen_api.sanitiser_pool import SanitiserPool
from umrgen_core.errors import InvalidImage
from umrgen_core.sections import UploadSettings

EXIF = tiff([(0x0112, 3, 1, 6), (0x010E, 2, 40, 38), (0x011A, 5, 1, 38)], bytes(48))
NOISE = noise(64, 64)


def png_seeds() -> list[bytes]:
    whole = encode(NOISE, "PNG", exif=EXIF, icc_profile=icc.srgb(), transparency=(1, 2, 3), dpi=(72, 72))
    shared = b"zTXta\0\0" + b"iTXtb\0\0\0\0\0c"
    return [
        whole,
        encode(NOISE.convert("P"), "PNG", transparency=3),
        encode(NOISE.convert("L").convert("I;16"), "PNG"),
        encode(NOISE.convert("LA"), "PNG", icc_profile=icc.table(3, 5)),
        encode(NOISE.convert("1"), "PNG"),
        whole[:33] + chunk(shared[:4], shared[4:7]) + chunk(b"fcTL", bytes(26)) + whole[33:],
        encode(NOISE, "PNG", save_all=True, append_images=[noise(64, 64, seed=1)]),
    ]


def jpeg_seeds() -> list[bytes]:
    plain = encode(NOISE, "JPEG", exif=EXIF, comment=b"x" * 20, dpi=(72, 72))
    return [
        after_soi(icc_pieces(icc.srgb(), 3), plain),
        encode(NOISE, "JPEG", progressive=True, subsampling=0),
        encode(NOISE.convert("CMYK"), "JPEG", progressive=True),
        encode(NOISE.convert("L"), "JPEG", restart_marker_blocks=3),
        after_soi(segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed\0\0\0\0\0\x10" + bytes(16)), plain),
        after_soi(icc_pieces(icc.table(4, 3, b"CMYK"), 1), encode(NOISE.convert("CMYK"), "JPEG")),
    ]


def webp_seeds() -> list[bytes]:
    lossy = webp_payload(NOISE)
    lossless = webp_payload(NOISE.convert("RGBA"), lossless=True, method=0)
    return [
        webp(vp8x(64, 64, 44), (b"ICCP", icc.srgb()), lossy, (b"EXIF", EXIF), (b"XMP ", b"<x:xmpmeta/>")),
        webp(lossless),
        webp(vp8x(64, 64, 16), (b"ALPH", b"\0" + bytes(64 * 64)), lossy),
        encode(NOISE, "WEBP", save_all=True, append_images=[noise(64, 64, seed=1)]),
    ]


SEEDS = {"png": png_seeds(), "jpeg": jpeg_seeds(), "webp": webp_seeds()}
EVERY_SEED = [seed for seeds in SEEDS.values() for seed in seeds]
INTERESTING = [
    bytes(2),
    b"\xff\xff",
    b"\x7f\xff",
    b"\x80\0",
    b"\0\1",
    b"\xff\xd8",
    b"\xff\xda",
    b"\xff\xc2",
    b"Exif",
    bytes(4),
]
WIDE = [0, 1, 63, 64, 255, 4096, 65_535, 2**31 - 1, 2**31, 2**32 - 1]


def flip(data: bytearray, place: int, value: int) -> None:
    """One byte."""
    data[place] = value & 0xFF


def lie(data: bytearray, place: int, value: int) -> None:
    """A length or size, in one byte order or the other."""
    data[place : place + 4] = struct.pack(">I" if value & 1 else "<I", WIDE[value % len(WIDE)])


def strew(data: bytearray, place: int, value: int) -> None:
    """Bytes that mean something, in the place of others."""
    piece = INTERESTING[value % len(INTERESTING)]
    data[place : place + len(piece)] = piece


def cut(data: bytearray, place: int, value: int) -> None:
    """The end, or a piece of the middle."""
    del data[place : place + value if value % 3 else None]


def repeat(data: bytearray, place: int, value: int) -> None:
    """A piece, several times."""
    data[place:place] = data[place : place + value % 64] * (1 + value % 50)


def swap(data: bytearray, place: int, value: int) -> None:
    """Two pieces change places, as chunks out of order do."""
    middle, end = place + value % 200, place + 2 * (value % 200)
    data[place:end] = data[middle:end] + data[place:middle]


def splice(data: bytearray, place: int, value: int) -> None:
    """A piece of another picture, of any format."""
    other = EVERY_SEED[value % len(EVERY_SEED)]
    data[place:place] = other[value % len(other) :][:300]


MUTATIONS: list[Callable[[bytearray, int, int], None]] = [flip, flip, flip, lie, lie, strew, cut, repeat, swap, splice]
PLACES = st.one_of(st.integers(0, 120), st.integers(0, 20_000))
STEPS = st.lists(st.tuples(st.sampled_from(MUTATIONS), PLACES, st.integers(0, 20_000)), min_size=1, max_size=6)


def mutate(seed: bytes, steps: list[tuple[Callable[[bytearray, int, int], None], int, int]]) -> bytes:
    """The seed after every step, its first bytes kept so that it is taken for what it was."""
    data = bytearray(seed)
    for apply, place, value in steps:
        if len(data) > 4:
            apply(data, 3 + place % (len(data) - 3), value)
    return bytes(data[:1_000_000])


def mutated(image_format: str) -> st.SearchStrategy[bytes]:
    return st.builds(mutate, st.sampled_from(SEEDS[image_format]), STEPS)


def bounded(examples: int) -> settings:
    """The same examples every time, as many as this."""
    return settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


class Child:
    """A real child, kept from one picture to the next."""

    def __init__(self, folder: Path) -> None:
        self._runner = asyncio.Runner()
        self._source, self._output = folder / "source", folder / "output"
        self._output.write_bytes(b"")
        self._pool = self._runner.run(self._open())

    async def _open(self) -> SanitiserPool:
        return SanitiserPool(UploadSettings(processes=1))

    def clean(self, data: bytes) -> str:
        """What became of a picture: `taken`, or why not."""
        self._source.write_bytes(data)
        try:
            self._runner.run(self._pool.sanitise(self._source, self._output))
        except InvalidImage as refusal:
            return str(refusal)
        return "taken"

    @property
    def pids(self) -> list[int]:
        return [child.pid for child in psutil.Process().children() if "umrgen_api.sanitiser" in child.cmdline()]

    def close(self) -> None:
        self._runner.run(self._pool.close())
        self._runner.close()


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    opened = Child(tmp_path_factory.mktemp("fuzz"))
    assert opened.clean(EVERY_SEED[0]) == "taken"
    yield opened
    opened.close()


@pytest.mark.parametrize("image_format", SEEDS)
def test_a_mutated_picture_is_refused_or_repaired_and_never_costs_the_child(child: Child, image_format: str) -> None:
    [first] = child.pids
    outcomes: list[str] = []

    @bounded(1500)
    @given(mutated(image_format))
    def fuzz(data: bytes) -> None:
        outcomes.append(child.clean(data))
        assert "time or memory" not in outcomes[-1]

    fuzz()
    assert child.pids == [first]
    taken = outcomes.count("taken")
    assert 0 < taken < len(outcomes)


@pytest.mark.parametrize("image_format", SEEDS)
def test_the_reader_of_headers_only_ever_refuses(image_format: str) -> None:
    slowest_s, read = 0.0, 0

    @bounded(2500)
    @given(mutated(image_format))
    @example(SEEDS[image_format][0])
    def fuzz(data: bytes) -> None:
        nonlocal slowest_s, read
        began = time.thread_time()
        try:
            header = read_header(data)
        except RefusedImage:
            pass
        else:
            read += 1
            assert MIN_SIDE_PX <= min(header.width, header.height) <= max(header.width, header.height) <= MAX_SIDE_PX
            assert header.width * header.height <= MAX_AREA_PX
        slowest_s = max(slowest_s, time.thread_time() - began)

    fuzz()
    assert read > 0
    assert slowest_s < 0.5


@bounded(1500)
@given(st.sampled_from([b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\0\0\0\0WEBP", b""]), st.binary(max_size=400))
def test_the_reader_of_headers_only_ever_refuses_bytes_of_no_meaning(signature: bytes, data: bytes) -> None:
    with pytest.raises(RefusedImage):
        read_header(signature + data)


@pytest.mark.parametrize("seed", range(len(EVERY_SEED)))
def test_a_picture_cut_anywhere_is_refused_or_repaired(child: Child, seed: int) -> None:
    [first] = child.pids
    data = EVERY_SEED[seed]
    for length in [*range(0, 64, 3), *range(64, len(data), max(1, len(data) // 20))]:
        assert "time or memory" not in child.clean(data[:length])
    assert child.pids == [first]
