"""The pieces that hostile files are put together from."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Samples of a pixel by PNG colour type."""


def noise(width: int = 96, height: int = 80, levels: int = 256, seed: int = 0, mode: str = "RGB") -> Image.Image:
    """A picture of noise of so many levels."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, levels, (height, width, 3), dtype=np.uint8) * np.uint8(255 // (levels - 1))
    return Image.fromarray(pixels).convert(mode)


def encode(image: Image.Image, image_format: str, **options: Any) -> bytes:
    """The bytes of an ordinary file."""
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def deflated(size: int, level: int = 9, byte: bytes = b"\0") -> bytes:
    """A zlib stream of so many equal bytes, made without holding them all."""
    packer, piece = zlib.compressobj(level), byte * min(size, 1 << 20)
    parts = [packer.compress(piece) for _ in range(size // len(piece))] if size else []
    return b"".join([*parts, packer.compress(byte * (size % (1 << 20)) if size >= 1 << 20 else b""), packer.flush()])


def chunk(kind: bytes, content: bytes = b"", *, crc: int | None = None, length: int | None = None) -> bytes:
    """A PNG chunk; checksum and length may lie."""
    crc = zlib.crc32(kind + content) if crc is None else crc
    return struct.pack(">I", len(content) if length is None else length) + kind + content + struct.pack(">I", crc)


def ihdr(width: int, height: int, depth: int = 8, colour: int = 2, interlace: int = 0) -> bytes:
    """The content of an IHDR chunk."""
    return struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)


def png_bytes(width: int, height: int, depth: int = 8, colour: int = 2, interlace: int = 0) -> int:
    """How many bytes of scan lines, filter bytes included, a PNG holds."""
    bits = depth * CHANNELS[colour]
    if not interlace:
        return height * (1 + (width * bits + 7) // 8)
    total = 0
    for x, y, dx, dy in ADAM7:
        columns, rows = -(-(width - x) // dx), -(-(height - y) // dy)
        total += rows * (1 + (columns * bits + 7) // 8) if columns > 0 and rows > 0 else 0
    return total


def png(header: bytes, *, before: bytes = b"", idat: bytes | None = None, after: bytes = b"") -> bytes:
    """A PNG of this IHDR content; without `idat`, one of zeros that fits."""
    if idat is None:
        width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", header)
        idat = deflated(png_bytes(width, height, depth, colour, interlace))
    return PNG_SIGNATURE + chunk(b"IHDR", header) + before + chunk(b"IDAT", idat) + after + chunk(b"IEND")


def segment(marker: int, content: bytes = b"", length: int | None = None) -> bytes:
    """A JPEG segment; the length may lie."""
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2 if length is None else length) + content


def after_soi(extra: bytes, picture: bytes | None = None) -> bytes:
    """A JPEG with more segments behind its first marker."""
    picture = encode(noise(), "JPEG") if picture is None else picture
    return picture[:2] + extra + picture[2:]


def in_pieces(prefix: bytes, content: bytes, marker: int = 0xE1) -> bytes:
    """`content` as segments of the largest size, each behind `prefix`."""
    size = 65_533 - len(prefix)
    return b"".join(segment(marker, prefix + content[at : at + size]) for at in range(0, len(content), size))


def icc_pieces(profile: bytes, pieces: int, of: int | None = None) -> bytes:
    """An ICC profile in so many APP2 segments that claim to be of `of`."""
    size = -(-len(profile) // pieces)
    return b"".join(
        segment(0xE2, b"ICC_PROFILE\0" + bytes([at + 1, of or pieces]) + profile[at * size : (at + 1) * size])
        for at in range(pieces)
    )


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    """A WebP of these chunks."""
    body = b"".join(
        kind + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2) for kind, content in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def vp8x(width: int, height: int, flags: int = 0) -> tuple[bytes, bytes]:
    """The chunk of an extended WebP; flags: 2 animated, 4 XMP, 8 EXIF, 16 alpha, 32 ICC."""
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"VP8X", bytes([flags, 0, 0, 0]) + sides


def webp_payload(image: Image.Image, **options: Any) -> tuple[bytes, bytes]:
    """The one chunk of a plain WebP."""
    data = encode(image, "WEBP", **options)
    size = struct.unpack("<I", data[16:20])[0]
    return data[12:16], data[20 : 20 + size]


def vp8l_of(width: int, height: int) -> bytes:
    """The header of a lossless WebP of this size and a few bytes that stand for its pixels."""
    return struct.pack("<BI", 0x2F, (width - 1) | (height - 1) << 14) + bytes(9)


def tiff(entries: list[tuple[int, int, int, int]], after: bytes = b"", following: int = 0) -> bytes:
    """EXIF data of one directory; each entry is tag, type, count, value or offset."""
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return struct.pack("<2sHIH", b"II", 42, 8, len(entries) & 0xFFFF) + body + struct.pack("<I", following) + after
