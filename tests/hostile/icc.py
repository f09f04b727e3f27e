"""Colour profiles that lie."""

from __future__ import annotations

import struct
from functools import cache

from PIL import ImageCms


@cache
def srgb() -> bytes:
    """An honest profile with the time of its making left out."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[24:36] = bytes(12)
    return bytes(profile)


def changed(at: int, content: bytes) -> bytes:
    """The honest profile with some bytes replaced."""
    profile = bytearray(srgb())
    profile[at : at + len(content)] = content
    return bytes(profile)


def of_class(name: bytes) -> bytes:
    """A profile of another class: printer, link, abstract, named colours."""
    return changed(12, name)


def of_space(name: bytes) -> bytes:
    """A profile that claims to describe another colour space."""
    return changed(16, name)


def of_connection_space(name: bytes) -> bytes:
    """A profile that claims to connect through another space."""
    return changed(20, name)


def of_tags(count: int, fill: bytes = b"\xff") -> bytes:
    """A profile with a tag table of this length, filled with nonsense."""
    return changed(128, struct.pack(">I", count) + fill * 4000)


def of_curve(count: int) -> bytes:
    """A profile whose red goes through a curve that claims so many points."""
    at = srgb().index(b"rTRC", 128)
    offset = int.from_bytes(srgb()[at + 4 : at + 8], "big")
    return changed(offset, b"curv" + bytes(4) + struct.pack(">I", count))


def of_text(count: int) -> bytes:
    """A profile whose name claims so many translations."""
    at = srgb().index(b"desc", 128)
    offset = int.from_bytes(srgb()[at + 4 : at + 8], "big")
    return changed(offset, b"mluc" + bytes(4) + struct.pack(">II", count, 12))


def table(channels: int, side: int, space: bytes = b"RGB ", entries: int = 256) -> bytes:
    """A profile whose colours go through a table of side**channels points (`lut16`, in and out Lab)."""
    curves = struct.pack(f">{entries}H", *(min(65_535, index * 257) for index in range(entries)))
    points = bytes((index * 37) & 0xFF for index in range(256)) * (side**channels * 6 // 256 + 1)
    matrix = struct.pack(">9i", 65_536, 0, 0, 0, 65_536, 0, 0, 0, 65_536)
    lut = b"mft2" + bytes(4) + bytes([channels, 3, side, 0]) + matrix + struct.pack(">HH", entries, entries)
    lut += curves * channels + points[: side**channels * 6] + curves * 3
    head = bytearray(srgb()[:128])
    head[12:16], head[16:20], head[20:24] = b"prtr", space, b"Lab "
    tags = struct.pack(">I", 1) + struct.pack(">4sII", b"A2B0", 144, len(lut))
    profile: bytes = bytes(head) + tags + lut
    return struct.pack(">I", len(profile)) + profile[4:]
