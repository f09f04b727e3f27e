"""Hostile PNG files."""

from __future__ import annotations

import struct
import zlib

from tests.hostile.build import PNG_SIGNATURE, chunk, deflated, encode, ihdr, noise, png, png_bytes
from tests.hostile.case import Case, decoder, header, taken
from tests.hostile.png_chunk_cases import chunk_cases

PNG = "png"
SMALL = ihdr(96, 80)


def _ihdr_alone(width: int, height: int) -> bytes:
    return PNG_SIGNATURE + chunk(b"IHDR", ihdr(width, height)) + chunk(b"IDAT", deflated(64)) + chunk(b"IEND")


def _sizes() -> list[Case]:
    refused = {
        "a PNG of 2147483647 px a side": (2**31 - 1, 2**31 - 1),
        "a PNG of 4294967295 px a side": (2**32 - 1, 2**32 - 1),
        "a PNG of negative width": (2**31 + 96, 80),
        "a PNG of no width": (0, 80),
        "a PNG of no height": (96, 0),
        "a PNG of 63 px": (64, 63),
        "a PNG of 8193 px": (64, 8193),
        "a PNG of one row and 40 Mpx": (40_000_000, 1),
        "a PNG of one column and 40 Mpx": (1, 40_000_000),
        "a PNG just above 40 Mpx": (8192, 4883),
    }
    cases = [header(name, PNG, lambda size=size: _ihdr_alone(*size)) for name, size in refused.items()]  # type: ignore[misc]
    good = {"64 px": (64, 64), "64x8192 px": (64, 8192), "8192x64 px": (8192, 64)}
    cases += [taken(f"a PNG of {name}", PNG, lambda size=size: png(ihdr(*size))) for name, size in good.items()]  # type: ignore[misc]
    return cases


def _depths() -> list[Case]:
    legal = [(1, 0), (2, 0), (4, 0), (8, 0), (16, 0), (8, 2), (16, 2), (8, 4), (16, 4), (8, 6), (16, 6)]
    cases = [
        taken(f"a PNG of {depth} bits, colour type {colour}, interlace {lace}", PNG,
              lambda d=depth, c=colour, i=lace: png(ihdr(96, 80, d, c, i)))  # type: ignore[misc]
        for depth, colour in legal for lace in (0, 1)
    ]  # fmt: skip
    plte = chunk(b"PLTE", bytes(range(6)))
    cases += [
        taken(f"a PNG of {depth} bits with a palette", PNG,
              lambda d=depth: png(ihdr(96, 80, d, 3), before=plte))  # type: ignore[misc]
        for depth in (1, 2, 4, 8)
    ]  # fmt: skip
    broken = [(3, 0), (0, 2), (16, 3), (1, 2), (8, 1), (8, 5), (32, 2), (255, 255)]
    cases += [
        decoder(f"a PNG of {depth} bits, colour type {colour}", PNG,
                lambda d=depth, c=colour: png(ihdr(96, 80, d, c), idat=deflated(30_000)))  # type: ignore[misc]
        for depth, colour in broken
    ]  # fmt: skip
    return cases


def _palettes() -> list[Case]:
    palette, grey = ihdr(96, 80, 8, 3), ihdr(96, 80, 8, 0)
    plte = chunk(b"PLTE", bytes(768))
    return [
        taken("a PNG with a palette that is missing", PNG, lambda: png(palette)),
        decoder("a PNG with a palette of 256 kB", PNG, lambda: png(palette, before=chunk(b"PLTE", bytes(262_144)))),
        taken("a PNG with a palette of 7 bytes", PNG, lambda: png(palette, before=chunk(b"PLTE", bytes(7)))),
        taken("a PNG with an empty palette", PNG, lambda: png(palette, before=chunk(b"PLTE"))),
        taken("a PNG with indices beyond its palette", PNG,
              lambda: png(palette, before=chunk(b"PLTE", bytes(6)), idat=deflated(97 * 80, byte=b"\1"))),
        decoder("a PNG with tRNS longer than its palette", PNG,
              lambda: png(palette, before=plte + chunk(b"tRNS", bytes(range(256)) * 40))),
        taken("a PNG with an empty tRNS", PNG, lambda: png(palette, before=plte + chunk(b"tRNS"))),
        decoder("a PNG with a tRNS that is too short", PNG, lambda: png(SMALL, before=chunk(b"tRNS", b"\0\1"))),
        taken("a PNG with a tRNS out of range", PNG, lambda: png(grey, before=chunk(b"tRNS", b"\xff\xff"))),
        taken("a PNG of colours with a tRNS out of range", PNG, lambda: png(SMALL, before=chunk(b"tRNS", b"\xff" * 6))),
        taken("a PNG of alpha with a tRNS", PNG,
              lambda: png(ihdr(96, 80, 8, 6), before=chunk(b"tRNS", b"\0\1" * 3))),
        taken("a PNG of 1 bit with a tRNS", PNG, lambda: png(ihdr(96, 80, 1, 0), before=chunk(b"tRNS", b"\0\1"))),
        taken("a PNG of 16 bits with a tRNS", PNG, lambda: png(ihdr(96, 80, 16, 0), before=chunk(b"tRNS", b"\1\0"))),
    ]  # fmt: skip


def _streams() -> list[Case]:
    whole = encode(noise(), "PNG")
    size = png_bytes(96, 80)
    return [
        decoder("a PNG cut in its pixels", PNG, lambda: whole[: len(whole) // 2]),
        decoder("a PNG cut behind its header", PNG, lambda: whole[:33]),
        header("a PNG cut in its header", PNG, lambda: whole[:25]),
        taken("a PNG cut before its end", PNG, lambda: whole[:-12]),
        taken("a PNG of too few pixels", PNG, lambda: png(SMALL, idat=deflated(size // 2))),
        decoder("a PNG of no pixels", PNG, lambda: png(SMALL, idat=b"")),
        decoder("a PNG without IDAT", PNG, lambda: PNG_SIGNATURE + chunk(b"IHDR", SMALL) + chunk(b"IEND")),
        decoder("a PNG whose pixels are not zlib", PNG, lambda: png(SMALL, idat=bytes(range(256)) * 40)),
        decoder("a PNG with a preset dictionary", PNG,
                lambda: png(SMALL, idat=b"\x78\xbb\0\0\0\1" + deflated(size)[2:])),
        decoder("a PNG of filter 255", PNG, lambda: png(SMALL, idat=zlib.compress((b"\xff" + bytes(288)) * 80))),
        taken("a PNG of 100 MB more pixels than its size", PNG, lambda: png(SMALL, idat=deflated(100_000_000, 6))),
        taken("a PNG of 4000 IDAT chunks", PNG, _many_idats),
        header("a PNG of 5000 IDAT chunks of nothing", PNG, lambda: png(SMALL, after=chunk(b"IDAT") * 5000)),
        decoder("a PNG with a wrong checksum of IHDR", PNG, lambda: _with_crc(b"IHDR")),
        taken("a PNG with a wrong checksum of IDAT", PNG, lambda: _with_crc(b"IDAT")),
        decoder("a PNG with a chunk of 2 GB", PNG, lambda: png(SMALL, before=chunk(b"tEXt", b"a\0b", length=2**31))),
        decoder("a PNG with a chunk of 4 GB", PNG, lambda: png(SMALL, before=chunk(b"abCd", length=2**32 - 1))),
        decoder("a PNG with a chunk of no name", PNG, lambda: png(SMALL, before=chunk(b"\0\0\0\0"))),
        decoder("a PNG with a short IHDR", PNG,
                lambda: PNG_SIGNATURE + chunk(b"IHDR", SMALL[:8]) + chunk(b"tEXt", bytes(99)) + chunk(b"IEND")),
        decoder("a PNG with a second IHDR of 40000 px", PNG,
                lambda: png(SMALL, before=chunk(b"IHDR", ihdr(40_000, 40_000)))),
        decoder("a PNG with a second IHDR of 8192x4882 px", PNG,
                lambda: png(SMALL, before=chunk(b"IHDR", ihdr(8192, 4882)))),
        header("a PNG whose first chunk is not IHDR", PNG,
               lambda: PNG_SIGNATURE + chunk(b"tEXt", b"a\0b" * 20) + chunk(b"IHDR", SMALL) + chunk(b"IEND")),
        header("an MNG", "mng", lambda: b"\x8aMNG\r\n\x1a\n" + whole[8:]),
    ]  # fmt: skip


def _many_idats() -> bytes:
    pixels = zlib.compress(bytes(png_bytes(96, 80)), 0)
    pieces = [pixels[at : at + 6] for at in range(0, len(pixels), 6)]
    return png(SMALL, idat=pieces[0], after=b"".join(chunk(b"IDAT", piece) for piece in pieces[1:]))


def _with_crc(kind: bytes) -> bytes:
    whole = bytearray(encode(noise(), "PNG"))
    length_at = whole.index(kind) - 4
    end = length_at + 8 + struct.unpack(">I", whole[length_at : length_at + 4])[0]
    whole[end] ^= 0xFF
    return bytes(whole)


def png_cases() -> list[Case]:
    """Every one of them."""
    return [*_sizes(), *_depths(), *_palettes(), *_streams(), *chunk_cases()]
