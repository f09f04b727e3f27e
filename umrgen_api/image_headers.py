"""What a picture's header says, read before any decoder touches it.

Pure byte reading with bounded work: a hostile file costs no more here than one pass over its bytes.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from umrgen_api.fates import Fate

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_SCANS = 64
"""A progressive JPEG of 376 KB with thousands of scans costs half a minute; ordinary files have 1-10."""
MAX_CHUNKS = 4096
"""A PNG of 300,000 tiny chunks costs seconds inside open(); ordinary files have fewer than a hundred."""
MAX_SEGMENTS = 1024
"""800,000 tiny EXIF segments cost a decoder six seconds; ordinary JPEGs have 5 to 100."""
MAX_BETWEEN_BYTES = 1 << 16
"""Bytes before the first scan that belong to no segment: a decoder looks at each of them alone."""
MIN_SIDE_PX = 64
MAX_SIDE_PX = 8192
MAX_AREA_PX = 40_000_000

_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SCAN = 0xDA
_END = 0xD9
_MARKER = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd8]")
"""A marker that a length follows; a restart, a start and a stuffed byte have none."""


class RefusedImage(Exception):
    """The picture is not one that this service decodes; the reason says why."""

    def __init__(self, fate: Fate, reason: str) -> None:
        super().__init__(reason)
        self.fate = fate
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Header:
    """Format (`jpeg`, `png`, `webp`) and size in pixels as the header has them."""

    format: str
    width: int
    height: int


def read_header(data: bytes) -> Header:
    """Recognise `data` by content and check it. Raises RefusedImage."""
    if data.startswith(PNG_SIGNATURE):
        header = _read_png(data)
    elif data.startswith(b"\xff\xd8\xff"):
        header = _read_jpeg(data)
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        header = _read_webp(data)
    else:
        raise RefusedImage(Fate.NO_IMAGE, "it is not a PNG, JPEG or WebP image (recognised by content, not by name)")
    check_size(header.width, header.height)
    return header


def check_size(width: int, height: int) -> None:
    """Raise RefusedImage for a size outside the limits of a reference."""
    if min(width, height) < MIN_SIDE_PX:
        raise RefusedImage(Fate.SIZE, f"it is {width}x{height} pixels; both sides must have at least {MIN_SIDE_PX}")
    if max(width, height) > MAX_SIDE_PX:
        raise RefusedImage(Fate.SIZE, f"it is {width}x{height} pixels; both sides may have at most {MAX_SIDE_PX}")
    if width * height > MAX_AREA_PX:
        raise RefusedImage(Fate.SIZE, f"it has {width * height} pixels; at most {MAX_AREA_PX} are taken")


def _read_png(data: bytes) -> Header:
    if data[12:16] != b"IHDR" or len(data) < 33:
        raise RefusedImage(Fate.DAMAGED, "its PNG header is damaged")
    width, height = struct.unpack(">II", data[16:24])
    position, chunks, profiles = 8, 0, 0
    while position + 8 <= len(data):
        length, kind = struct.unpack(">I4s", data[position : position + 8])
        if kind == b"acTL":
            raise RefusedImage(Fate.ANIMATED, "it is animated; send a still image")
        if kind == b"IEND":
            break
        profiles += kind == b"iCCP"
        if profiles > 1:
            raise RefusedImage(Fate.TOO_INTRICATE, "it has more than one colour profile")
        chunks += 1
        if chunks > MAX_CHUNKS:
            raise RefusedImage(Fate.TOO_INTRICATE, f"it has more than {MAX_CHUNKS} PNG chunks")
        position += 12 + length
    return Header("png", width, height)


def _read_jpeg(data: bytes) -> Header:
    size: tuple[int, int] | None = None
    scans = 0
    for marker, body in _list_segments(data):
        if marker == _SCAN:
            scans += 1
            if scans > MAX_SCANS:
                raise RefusedImage(Fate.TOO_INTRICATE, f"it is a JPEG of more than {MAX_SCANS} scans")
        elif marker in _START_OF_FRAME and size is None and body + 5 <= len(data):
            height, width = struct.unpack(">HH", data[body + 1 : body + 5])
            size = width, height
    if size is None or scans == 0:
        raise RefusedImage(Fate.DAMAGED, "its JPEG header is damaged")
    return Header("jpeg", *size)


def _list_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """(marker, where its body begins) of every segment that has a length. Raises RefusedImage for too many."""
    position = 2
    segments = between = 0
    scanned = False
    while (found := _MARKER.search(data, position)) and found.start() + 4 <= len(data):
        start, marker = found.start(), data[found.start() + 1]
        if marker == _END:
            return
        segments += 1
        between += 0 if scanned else start - position
        if segments > MAX_SEGMENTS:
            raise RefusedImage(Fate.TOO_INTRICATE, f"it has more than {MAX_SEGMENTS} JPEG segments")
        if between > MAX_BETWEEN_BYTES:
            raise RefusedImage(Fate.TOO_INTRICATE, "it has too many bytes between its JPEG segments")
        yield marker, start + 4
        scanned = scanned or marker == _SCAN
        position = start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")


def _read_webp(data: bytes) -> Header:
    kind = data[12:16]
    if kind == b"VP8X" and len(data) >= 30:
        if data[20] & 0x02:
            raise RefusedImage(Fate.ANIMATED, "it is animated; send a still image")
        return Header("webp", 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little"))
    if kind == b"VP8L" and len(data) >= 25 and data[20] == 0x2F:
        bits = int.from_bytes(data[21:25], "little")
        return Header("webp", 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF))
    if kind == b"VP8 " and len(data) >= 30 and data[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack("<HH", data[26:30])
        return Header("webp", width & 0x3FFF, height & 0x3FFF)
    raise RefusedImage(Fate.DAMAGED, "its WebP header is damaged")
