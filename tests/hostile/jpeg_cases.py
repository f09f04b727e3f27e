"""Hostile JPEG files."""

from __future__ import annotations

import struct
from functools import cache

from tests.hostile import icc
from tests.hostile.build import after_soi, encode, icc_pieces, noise, segment
from tests.hostile.case import Case, decoder, header, taken
from tests.hostile.jpeg_segment_cases import segment_cases

JPEG = "jpg"
SOF = 0xC0


@cache
def _plain() -> bytes:
    return encode(noise(), "JPEG")


@cache
def _progressive(width: int = 96, height: int = 80) -> bytes:
    return encode(noise(width, height), "JPEG", progressive=True)


def _frame(picture: bytes) -> int:
    """Where the first start-of-frame marker is."""
    return min(at for marker in (b"\xff\xc0", b"\xff\xc2") if (at := picture.find(marker)) > 0)


def _changed(at: int, content: bytes, picture: bytes | None = None) -> bytes:
    """A JPEG with bytes replaced, counted from its frame marker."""
    data = bytearray(picture or _plain())
    at += _frame(bytes(data))
    data[at : at + len(content)] = content
    return bytes(data)


def _sized(width: int, height: int) -> bytes:
    return _changed(5, struct.pack(">HH", height, width))


def with_scans(picture: bytes, count: int) -> bytes:
    """A progressive JPEG whose last scan is repeated until it has `count` scans."""
    last = picture[picture.rindex(b"\xff\xda") : -2]
    return picture[:-2] + last * (count - picture.count(b"\xff\xda")) + picture[-2:]


def _frames() -> list[Case]:
    return [
        header("a JPEG of 65535 px", JPEG, lambda: _sized(65_535, 65_535)),
        header("a JPEG of no height", JPEG, lambda: _sized(96, 0)),
        header("a JPEG of no height and DNL", JPEG,
               lambda: _sized(96, 0)[:-2] + segment(0xDC, b"\0\x50") + b"\xff\xd9"),
        header("a JPEG of no width", JPEG, lambda: _sized(0, 80)),
        header("a JPEG of 63 px", JPEG, lambda: _sized(63, 80)),
        header("a JPEG of 8193 px", JPEG, lambda: _sized(8193, 80)),
        header("a JPEG of one row and 40000 px", JPEG, lambda: _sized(40_000, 1)),
        taken("a JPEG that claims to be smaller", JPEG, lambda: _sized(64, 64)),
        taken("a JPEG that claims 8192x4882 px", JPEG, lambda: _sized(8192, 4882)),
        decoder("a JPEG of 12 bits", JPEG, lambda: _changed(4, b"\x0c")),
        decoder("a JPEG of 16 bits", JPEG, lambda: _changed(4, b"\x10")),
        decoder("a JPEG of no bits", JPEG, lambda: _changed(4, b"\0")),
        decoder("a JPEG of 2 components", JPEG, lambda: _changed(9, b"\2")),
        decoder("a JPEG of 255 components", JPEG, lambda: _changed(9, b"\xff")),
        decoder("a JPEG of no components", JPEG, lambda: _changed(9, b"\0")),
        decoder("a JPEG with sampling 0", JPEG, lambda: _changed(11, b"\0")),
        decoder("a JPEG with sampling 15", JPEG, lambda: _changed(11, b"\xff")),
        taken("a JPEG that says arithmetic", JPEG, lambda: _changed(1, b"\xc9")),
        decoder("a JPEG that says lossless", JPEG, lambda: _changed(1, b"\xc3")),
        decoder("a JPEG that says hierarchical", JPEG, lambda: _changed(1, b"\xc5")),
        decoder("a JPEG that says progressive", JPEG, lambda: _changed(1, b"\xc2")),
        decoder("a JPEG with two frames", JPEG,
                lambda: after_soi(segment(SOF, struct.pack(">BHHB", 8, 80, 96, 1) + b"\1\x11\0"))),
        decoder("a JPEG whose second frame has 65535 px", JPEG,
                lambda: _plain()[: _frame(_plain()) + 19] + segment(SOF, struct.pack(">BHHB", 8, 65_535, 65_535, 1)
                        + b"\1\x11\0") + _plain()[_frame(_plain()) + 19 :]),
        header("a JPEG of a frame that is cut", JPEG, lambda: _plain()[: _frame(_plain()) + 6]),
        decoder("a JPEG of a frame of length 2", JPEG, lambda: _changed(2, b"\0\2")),
    ]  # fmt: skip


def _modes() -> list[Case]:
    rgb, adobe = noise(), b"Adobe\0\x64\0\0\0\0"
    kinds = [("L", 0), ("L", 1), ("RGB", 0), ("RGB", 1), ("CMYK", 0), ("CMYK", 1)]
    cases = [
        taken(f"a JPEG of {mode} with the Adobe marker {mark}", JPEG, lambda m=mode, a=mark: after_soi(  # type: ignore[misc]
            segment(0xEE, adobe + bytes([a])), encode(rgb.convert(m), "JPEG")))
        for mode in ("L", "RGB") for mark in (0, 1, 2, 255)
    ]  # fmt: skip
    cases += [
        taken(f"a JPEG of {mode}, progressive {flag}", JPEG,
              lambda m=mode, p=flag: encode(rgb.convert(m), "JPEG", progressive=bool(p)))  # type: ignore[misc]
        for mode, flag in kinds
    ]  # fmt: skip
    cmyk = encode(rgb.convert("CMYK"), "JPEG")
    return [
        *cases,
        taken("a JPEG of YCCK", JPEG, lambda: cmyk.replace(b"Adobe\0\x64\0\0\0\0\0", b"Adobe\0\x64\0\0\0\0\2")),
        taken("a JPEG of CMYK without its Adobe marker", JPEG, lambda: cmyk.replace(b"Adobe", b"adobe")),
        taken("a JPEG of CMYK with a profile of CMYK", JPEG, lambda: after_soi(
            icc_pieces(icc.table(4, 9, b"CMYK"), 2), cmyk)),
        taken("a JPEG of CMYK with a profile of RGB", JPEG, lambda: after_soi(icc_pieces(icc.srgb(), 1), cmyk)),
        taken("a JPEG of colours with a profile of CMYK", JPEG, lambda: after_soi(
            icc_pieces(icc.table(4, 9, b"CMYK"), 2))),
        taken("a JPEG of grey with a profile of RGB", JPEG, lambda: after_soi(
            icc_pieces(icc.srgb(), 1), encode(rgb.convert("L"), "JPEG"))),
        taken("a JPEG with a profile in 255 pieces", JPEG, lambda: after_soi(icc_pieces(icc.srgb(), 255))),
        taken("a JPEG with a profile that misses pieces", JPEG, lambda: after_soi(icc_pieces(icc.srgb(), 3, of=9))),
        taken("a JPEG with a profile of 0 pieces", JPEG, lambda: after_soi(
            segment(0xE2, b"ICC_PROFILE\0\0\0" + icc.srgb()))),
        decoder("a JPEG with a profile that is cut in its name", JPEG, lambda: after_soi(
            segment(0xE2, b"ICC_PROFILE\0"))),
        taken("a JPEG with a profile of 9 MB", JPEG, lambda: after_soi(
            icc_pieces(icc.srgb() + bytes(9_000_000), 150))),
        taken("a JPEG with a profile whose table has 9 MB", JPEG, lambda: after_soi(
            icc_pieces(icc.table(3, 113), 150))),
    ]  # fmt: skip


def _scans() -> list[Case]:
    plain, progressive = _plain(), _progressive()
    sos = plain.index(b"\xff\xda")
    return [
        taken("a JPEG of 64 scans", JPEG, lambda: with_scans(progressive, 64)),
        header("a JPEG of 65 scans", JPEG, lambda: with_scans(progressive, 65)),
        header("a JPEG of 5000 scans", JPEG, lambda: with_scans(progressive, 5000)),
        header("a JPEG of a million scans of nothing", JPEG, lambda: plain[:sos] + segment(0xDA) * 2_000_000),
        taken("a JPEG whose first scan stands alone", JPEG,
              lambda: progressive[: progressive.index(b"\xff\xda", progressive.index(b"\xff\xda") + 2)] + b"\xff\xd9"),
        taken("a JPEG with a restart after every block", JPEG, lambda: encode(
            noise(512, 512), "JPEG", restart_marker_blocks=1)),
        taken("a JPEG that promises restarts and has none", JPEG, lambda: after_soi(segment(0xDD, b"\0\1"))),
        taken("a JPEG with a million restarts behind its pixels", JPEG,
              lambda: plain[:-2] + b"\xff\xd0" * 1_000_000 + plain[-2:]),
        taken("a JPEG of 1000 restart intervals", JPEG, lambda: after_soi(segment(0xDD, b"\0\0") * 1000)),
        decoder("a JPEG cut in its pixels", JPEG, lambda: plain[: len(plain) // 2]),
        decoder("a JPEG without an end", JPEG, lambda: plain[:-2]),
        header("a JPEG without a scan", JPEG, lambda: plain[:sos] + b"\xff\xd9"),
        decoder("a JPEG without tables", JPEG, lambda: plain[:2] + plain[_frame(plain) : _frame(plain) + 19]
                + plain[sos:]),
        decoder("a JPEG of two starts", JPEG, lambda: b"\xff\xd8" + plain),
        header("a JPEG of starts alone", JPEG, lambda: b"\xff\xd8" * 5_000_000),
        header("a JPEG of 10 MB of 255", JPEG, lambda: b"\xff\xd8" + b"\xff" * 10_000_000),
        taken("a JPEG whose pixels are followed by 10 MB of 255 and 0", JPEG,
              lambda: plain[:-2] + b"\xff\0" * 5_000_000 + plain[-2:], slow=True),
        header("a JPEG whose frame is behind 10 MB of 255", JPEG, lambda: after_soi(b"\xff" * 10_000_000)),
    ]  # fmt: skip


def jpeg_cases() -> list[Case]:
    """Every one of them."""
    return [*_frames(), *_modes(), *_scans(), *segment_cases()]
