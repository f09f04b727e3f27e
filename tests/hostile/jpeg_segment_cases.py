"""Hostile segments and EXIF data in JPEG files."""

from __future__ import annotations

from functools import cache

from tests.hostile.build import after_soi, encode, in_pieces, noise, segment, tiff
from tests.hostile.case import Case, decoder, header, taken

JPEG = "jpg"
EXIF = b"Exif\0\0"


@cache
def _plain() -> bytes:
    return encode(noise(), "JPEG")


def _segments() -> list[Case]:
    plain = _plain()
    return [
        taken("a JPEG of 150 segments of 64 kB", JPEG, lambda: after_soi(segment(0xE5, bytes(65_533)) * 150)),
        header("a JPEG of 2.6 million empty segments", JPEG, lambda: after_soi(segment(0xE5) * 2_600_000)),
        header("a JPEG of 20000 comments", JPEG, lambda: after_soi(segment(0xFE, b"x" * 400) * 20_000)),
        taken("a JPEG with a segment of length 0", JPEG, lambda: after_soi(segment(0xE5, length=0))),
        taken("a JPEG with a segment of length 1", JPEG, lambda: after_soi(segment(0xE5, length=1))),
        header("a JPEG with a segment beyond its end", JPEG, lambda: after_soi(segment(0xE5, length=65_535))),
        decoder("a JPEG with a marker that nobody knows", JPEG, lambda: after_soi(segment(0x33, b"xx"))),
        decoder("a JPEG with JFIF cut short", JPEG, lambda: after_soi(segment(0xE0, b"JFIF"), plain[:2] + plain[20:])),
        decoder("a JPEG with Adobe cut short", JPEG, lambda: after_soi(segment(0xEE, b"Adobe"))),
        taken("a JPEG with Photoshop data that lies", JPEG,
              lambda: after_soi(segment(0xED, b"Photoshop 3.0\0" + b"8BIM\3\xed\0\0\xff\xff\xff\xff" * 4000))),
        decoder("a JPEG with a broken table", JPEG, lambda: after_soi(segment(0xDB, b"\xff" * 10))),
        decoder("a JPEG with Huffman tables that overflow", JPEG,
               lambda: after_soi(segment(0xC4, b"\0" + b"\xff" * 272))),
        taken("a JPEG with a second picture behind it (MPO)", JPEG, lambda: encode(
            noise(), "MPO", save_all=True, append_images=[noise(seed=1)])),
        taken("a JPEG whose MPO directory lies", JPEG, lambda: after_soi(
            segment(0xE2, b"MPF\0" + tiff([(0xB001, 4, 1, 2**31), (0xB002, 7, 2**31, 8)])))),
        taken("a JPEG with PHP in a comment and behind it", JPEG,
              lambda: after_soi(segment(0xFE, b"<?php system($_GET[0]); ?>")) + b"<?php system($_GET[0]); ?>"),
        taken("a JPEG with HTML in a comment", JPEG, lambda: after_soi(segment(0xFE, b"--><script>alert(1)</script>"))),
    ]  # fmt: skip


def _exif(data: bytes) -> bytes:
    return after_soi(in_pieces(EXIF, data))


def _exifs() -> list[Case]:
    many = [(0x8000 + index % 0x4000, 7, 60_000, 8) for index in range(5000)]
    same = [(0x0112, 3, 1, value) for value in (6, 3, 8, 99)]
    cases = [
        taken(f"a JPEG with the orientation {value}", JPEG, lambda v=value: _exif(tiff([(0x0112, 3, 1, v)])))  # type: ignore[misc]
        for value in (0, 9, 65_535)
    ]
    types = {
        "a text": (2, 4),
        "a fraction": (5, 1),
        "signed": (9, 1),
        "a float": (11, 1),
        "many": (3, 9),
        "bytes": (7, 4),
    }
    cases += [
        taken(f"a JPEG with an orientation that is {name}", JPEG,
              lambda k=kind, c=count: _exif(tiff([(0x0112, k, c, 26)], bytes(64))))  # type: ignore[misc]
        for name, (kind, count) in types.items()
    ]  # fmt: skip
    return [
        *cases,
        taken("a JPEG with four orientations", JPEG, lambda: _exif(tiff(same))),
        taken("a JPEG with EXIF that names itself as the next", JPEG,
               lambda: _exif(tiff([(0x0112, 3, 1, 3)], following=8))),
        taken("a JPEG with EXIF within itself", JPEG,
              lambda: _exif(tiff([(0x8769, 4, 1, 8), (0x8825, 4, 1, 8), (0xA005, 4, 1, 8), (0x014A, 4, 1, 8)]))),
        taken("a JPEG with EXIF entries of 4 GB", JPEG, lambda: _exif(tiff([(0x010E, 2, 2**32 - 1, 8)] * 100))),
        taken("a JPEG with EXIF entries that overlap", JPEG, lambda: _exif(tiff(many, bytes(300_000)))),
        taken("a JPEG with EXIF of 65535 entries", JPEG,
              lambda: _exif(tiff([(index, 12, 1, 8) for index in range(65_535)], bytes(64)))),
        taken("a JPEG with EXIF cut short", JPEG, lambda: _exif(tiff(many)[:100])),
        taken("a JPEG with EXIF that is no TIFF", JPEG, lambda: _exif(b"nonsense" * 10)),
        taken("a JPEG with empty EXIF", JPEG, lambda: after_soi(
            segment(0xE1, EXIF))),
        taken("a JPEG with 10 MB of the word Exif", JPEG, lambda: _exif(EXIF * 1_700_000)),
        header("a JPEG with EXIF in 4000 pieces", JPEG,
              lambda: after_soi(segment(0xE1, EXIF + b"II" + bytes(2500)) * 4000), slow=True),
        header("a JPEG with EXIF in 800000 pieces", JPEG, lambda: after_soi(segment(0xE1, EXIF + b"II") * 800_000)),
        taken("a JPEG with 10 MB of XMP", JPEG,
              lambda: after_soi(segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + b"tiff:Orientation" * 4000) * 150)),
    ]  # fmt: skip


def segment_cases() -> list[Case]:
    """Every one of them."""
    return [*_segments(), *_exifs()]
