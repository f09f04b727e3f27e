"""Hostile WebP files."""

from __future__ import annotations

import struct
from functools import cache

from tests.hostile import icc
from tests.hostile.build import encode, noise, riff, tiff, vp8l_of, vp8x, webp_payload
from tests.hostile.case import Case, decoder, header, taken

WEBP = "webp"
SIZE = (96, 80)
ALPHA, EXIF, ICC, XMP = 16, 8, 32, 4


@cache
def _lossy() -> tuple[bytes, bytes]:
    return webp_payload(noise())


@cache
def _lossless() -> tuple[bytes, bytes]:
    return webp_payload(noise(), lossless=True, method=0)


def _with(kind: bytes, content: bytes, flag: int) -> bytes:
    """An extended WebP with one chunk of metadata."""
    chunks = [vp8x(*SIZE, flag), _lossy()]
    chunks.insert(1 if kind == b"ICCP" else 2, (kind, content))
    return riff(*chunks)


def _alpha(content: bytes) -> bytes:
    return riff(vp8x(*SIZE, ALPHA), (b"ALPH", content), _lossy())


def _sizes() -> list[Case]:
    return [
        header("a WebP of 16384 px in 34 bytes", WEBP, lambda: riff((b"VP8L", vp8l_of(16_384, 16_384)))),
        header("a WebP of 8193 px", WEBP, lambda: riff((b"VP8L", vp8l_of(8193, 64)))),
        header("a WebP just above 40 Mpx", WEBP, lambda: riff((b"VP8L", vp8l_of(8192, 4883)))),
        header("a WebP of 63 px", WEBP, lambda: riff((b"VP8L", vp8l_of(63, 64)))),
        header("a WebP of 16 million px a side", WEBP, lambda: riff(vp8x(2**24, 2**24), _lossy())),
        decoder("a WebP of 34 bytes at 40 Mpx", WEBP, lambda: riff((b"VP8L", vp8l_of(8192, 4882)))),
        decoder("a WebP whose canvas is larger than its picture", WEBP, lambda: riff(vp8x(8192, 4882), _lossy())),
        decoder("a WebP whose canvas is smaller than its picture", WEBP, lambda: riff(vp8x(64, 64), _lossy())),
        decoder("a WebP of a small canvas and a vast picture", WEBP,
                lambda: riff(vp8x(64, 64), (b"VP8L", vp8l_of(16_384, 16_384)))),
        taken("a WebP of 64x8192 px", WEBP, lambda: encode(noise(64, 8192, 2), "WEBP", lossless=True, method=0)),
        taken("a WebP of 8192x64 px", WEBP, lambda: encode(noise(8192, 64), "WEBP", quality=20, method=0)),
    ]  # fmt: skip


def _streams() -> list[Case]:
    lossy, lossless = riff(_lossy()), riff(_lossless())
    frame = bytearray(lossy)
    frame[20] |= 1
    return [
        decoder("a WebP cut in its pixels", WEBP, lambda: lossy[: len(lossy) // 2]),
        decoder("a lossless WebP cut in its pixels", WEBP, lambda: lossless[: len(lossless) // 2]),
        header("a WebP cut in its header", WEBP, lambda: lossy[:20]),
        header("a WebP of no chunks", WEBP, riff),
        header("a WebP that begins with EXIF", WEBP, lambda: riff((b"EXIF", tiff([])), _lossy())),
        header("a WebP whose signature is wrong", WEBP, lambda: lossy.replace(b"\x9d\x01\x2a", b"\x9d\x01\x2b")),
        decoder("a WebP that is no key frame", WEBP, lambda: bytes(frame)),
        decoder("a WebP of nonsense", WEBP, lambda: lossy[:30] + bytes(range(256)) * 8),
        decoder("a lossless WebP of nonsense", WEBP, lambda: lossless[:25] + bytes(range(256)) * 8),
        decoder("a lossless WebP of ones", WEBP, lambda: lossless[:25] + b"\xff" * (len(lossless) - 25)),
        decoder("a WebP whose RIFF is 4 GB", WEBP, lambda: lossy[:4] + b"\xff\xff\xff\xff" + lossy[8:]),
        decoder("a WebP whose RIFF is empty", WEBP, lambda: lossy[:4] + bytes(4) + lossy[8:]),
        decoder("a WebP whose chunk is 4 GB", WEBP, lambda: lossy[:16] + b"\xff\xff\xff\xff" + lossy[20:]),
        taken("a WebP of two pictures", WEBP, lambda: riff(_lossy(), _lossless())),
        header("a WebP that is animated", WEBP,
               lambda: encode(noise(), "WEBP", save_all=True, append_images=[noise(seed=1)])),
        decoder("a WebP with frames and no flag", WEBP, _hidden_frames),
        taken("a WebP of 200000 unknown chunks", WEBP,
              lambda: riff(vp8x(*SIZE), _lossy(), *[(b"JUNK", b"")] * 200_000)),
    ]  # fmt: skip


def _hidden_frames() -> bytes:
    kind, content = _lossy()
    inner = kind + struct.pack("<I", len(content)) + content
    sides = (SIZE[0] - 1).to_bytes(3, "little") + (SIZE[1] - 1).to_bytes(3, "little")
    frame = (b"ANMF", bytes(6) + sides + bytes(4) + inner)
    return riff(vp8x(*SIZE), (b"ANIM", bytes(6)), *[frame] * 3)


def _metadata() -> list[Case]:
    same_tag = [(0x010E, 7, 9_000_000, 8)] * 2000
    many_tags = [(index, 7, 9_000_000, 8) for index in range(2000)]
    return [
        taken("a WebP with a profile of 9 MB", WEBP, lambda: _with(b"ICCP", icc.srgb() + bytes(9_000_000), ICC)),
        taken("a WebP with a profile that is empty", WEBP, lambda: _with(b"ICCP", b"", ICC)),
        taken("a WebP with a profile of nonsense", WEBP, lambda: _with(b"ICCP", b"\xff" * 500, ICC)),
        taken("a WebP with a table of 9 MB in its profile", WEBP, lambda: _with(b"ICCP", icc.table(3, 113), ICC)),
        taken("a WebP with 9 MB of XMP", WEBP, lambda: _with(b"XMP ", b"tiff:Orientation=" * 530_000, XMP)),
        taken("a WebP with a billion laughs in XMP", WEBP, lambda: _with(b"XMP ", LAUGHS, XMP)),
        taken("a WebP with EXIF that turns it", WEBP, lambda: _with(b"EXIF", tiff([(0x0112, 3, 1, 6)]), EXIF)),
        taken("a WebP with 2000 EXIF entries of 9 MB", WEBP,
              lambda: _with(b"EXIF", tiff(many_tags, bytes(9_000_000)), EXIF)),
        taken("a WebP with one EXIF entry of 9 MB 2000 times", WEBP,
              lambda: _with(b"EXIF", tiff(same_tag, bytes(9_000_000)), EXIF)),
        taken("a WebP with 9 MB of the word Exif", WEBP, lambda: _with(b"EXIF", b"Exif\0\0" * 1_500_000, EXIF)),
        taken("a WebP with EXIF that is no TIFF", WEBP, lambda: _with(b"EXIF", b"nonsense", EXIF)),
        taken("a WebP with flags for everything and nothing there", WEBP, lambda: riff(vp8x(*SIZE, 0x3C), _lossy())),
    ]  # fmt: skip


LAUGHS = (
    b'<!DOCTYPE x [<!ENTITY a "ha">'
    + b"".join(b'<!ENTITY %c "%s">' % (98 + level, b"&%c;" % (97 + level) * 10) for level in range(9))
    + b']><x:xmpmeta xmlns:x="adobe:ns:meta/">&j;</x:xmpmeta>'
)


def _alphas() -> list[Case]:
    return [
        taken("a WebP with alpha", WEBP, lambda: _alpha(b"\0" + bytes(SIZE[0] * SIZE[1]))),
        decoder("a WebP with alpha cut short", WEBP, lambda: _alpha(b"\0" + bytes(100))),
        decoder("a WebP with alpha of nothing", WEBP, lambda: _alpha(b"")),
        decoder("a WebP with alpha of nonsense", WEBP, lambda: _alpha(b"\1" + b"\xff" * 500)),
        decoder("a WebP with alpha of an unknown method", WEBP, lambda: _alpha(b"\3" + bytes(9000))),
    ]


def webp_cases() -> list[Case]:
    """Every one of them."""
    return [*_sizes(), *_streams(), *_metadata(), *_alphas()]
