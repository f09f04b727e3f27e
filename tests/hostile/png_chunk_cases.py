"""Hostile chunks and colour profiles in PNG files."""

from __future__ import annotations

import struct
import zlib

from tests.hostile import icc
from tests.hostile.build import chunk, deflated, encode, ihdr, noise, png, tiff
from tests.hostile.case import Case, decoder, header, taken

PNG = "png"
SMALL = ihdr(96, 80)


def _bomb(kind: bytes, lead: bytes) -> bytes:
    """A chunk that swells to 200 MB."""
    return png(SMALL, before=chunk(kind, lead + deflated(200_000_000)))


def _chunks() -> list[Case]:
    megabyte = deflated((1 << 20) - 2048)
    exif = tiff([(0x0112, 3, 1, 6)])
    # Pillow keeps the texts of a PNG in one dictionary with what it knows of the picture.
    named = {"transparency": decoder, "interlace": decoder, "exif": taken, "bbox": decoder, "icc_profile": taken,
             "default_image": taken, "duration": taken, "blend": taken, "gamma": taken}  # fmt: skip
    cases = [
        judge(f"a PNG with a text named {name}", PNG,
              lambda n=name: png(ihdr(96, 80, 8, 0), before=chunk(b"tEXt", n.encode() + b"\0value")))  # type: ignore[misc]
        for name, judge in named.items()
    ]  # fmt: skip
    return [
        *cases,
        header("a PNG of 300000 tiny chunks", PNG, lambda: png(SMALL, before=chunk(b"tEXt", b"a\0b") * 300_000)),
        header("a PNG of 800000 empty chunks", PNG, lambda: png(SMALL, before=chunk(b"abCd") * 800_000)),
        taken("a PNG of 4000 texts", PNG, lambda: png(SMALL, before=chunk(b"tEXt", b"a\0b") * 4000)),
        decoder("a PNG with a bomb in zTXt", PNG, lambda: _bomb(b"zTXt", b"a\0\0")),
        decoder("a PNG with a bomb in iTXt", PNG,
                lambda: _bomb(b"iTXt", b"a\0\1\0\0\0")),
        decoder("a PNG with a bomb in iCCP", PNG, lambda: _bomb(b"iCCP", b"a\0\0")),
        decoder("a PNG of 100 texts of 1 MB", PNG,
                lambda: png(SMALL, before=chunk(b"zTXt", b"a\0\0" + megabyte) * 100)),
        header("a PNG of 4000 profiles of 1 MB", PNG,
              lambda: png(SMALL, before=chunk(b"iCCP", b"a\0\0" + megabyte) * 4000)),
        decoder("a PNG with iCCP of an unknown method", PNG, lambda: png(SMALL, before=chunk(b"iCCP", b"a\0\7xx"))),
        decoder("a PNG with an empty iCCP", PNG, lambda: png(SMALL, before=chunk(b"iCCP"))),
        taken("a PNG with a text of 10 MB", PNG, lambda: png(SMALL, before=chunk(b"tEXt", b"a\0" + bytes(10_000_000)))),
        taken("a PNG with EXIF that turns it", PNG, lambda: png(SMALL, before=chunk(b"eXIf", exif))),
        taken("a PNG with EXIF as hexadecimal text", PNG,
              lambda: png(SMALL, before=chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(
                  b"\nexif\n 26\n" + (b"Exif\0\0" + exif).hex().encode())))),
        taken("a PNG with EXIF as text that is not hexadecimal", PNG,
                lambda: png(SMALL, before=chunk(b"tEXt", b"Raw profile type exif\0\n\n\nxyz"))),
        taken("a PNG with EXIF of one byte", PNG, lambda: png(SMALL, before=chunk(b"eXIf", b"I"))),
        taken("a PNG of 4 chunks of each kind cut short", PNG, _short_unknown_chunks),
        header("a PNG that is animated", PNG,
               lambda: encode(noise(), "PNG", save_all=True, append_images=[noise(seed=1)])),
        header("a PNG with 4 billion frames", PNG,
               lambda: png(SMALL, before=chunk(b"acTL", struct.pack(">II", 2**32 - 1, 0)))),
        decoder("a PNG with a frame and no animation", PNG,
                lambda: png(SMALL, before=chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 9999, 9999, 5, 5, 0, 0, 0, 0)))),
        *[
            decoder(f"a PNG with a short {kind.decode()}", PNG,
                    lambda k=kind: png(SMALL, before=chunk(k, b"\0")))  # type: ignore[misc]
            for kind in (b"gAMA", b"cHRM", b"pHYs", b"tRNS")
        ],
    ]  # fmt: skip


def _behind() -> list[Case]:
    """Chunks of one byte behind the pixels, where they mean nothing."""
    ignored = (b"PLTE", b"sRGB", b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"abCd")
    refused = (b"IHDR", b"tRNS", b"gAMA", b"cHRM", b"pHYs", b"iCCP", b"fcTL", b"fdAT")
    return [
        judge(f"a PNG with {kind.decode()} of one byte behind its pixels", PNG,
              lambda k=kind: png(SMALL, after=chunk(k, b"\x07")))  # type: ignore[misc]
        for judge, kinds in ((taken, ignored), (decoder, refused)) for kind in kinds
    ]  # fmt: skip


def _short_unknown_chunks() -> bytes:
    kinds = (b"bKGD", b"hIST", b"sBIT", b"sPLT", b"tIME", b"oFFs", b"sTER", b"vpAg")
    return png(SMALL, before=b"".join(chunk(kind, b"\xff") for kind in kinds) * 4)


def _profiles() -> list[Case]:
    profiles = {
        "of the class printer": icc.of_class(b"prtr"),
        "of the class link": icc.of_class(b"link"),
        "of the class abstract": icc.of_class(b"abst"),
        "of named colours": icc.of_class(b"nmcl"),
        "of grey on colours": icc.of_space(b"GRAY"),
        "of CMYK on colours": icc.of_space(b"CMYK"),
        "of Lab on colours": icc.of_space(b"Lab "),
        "of 15 colours": icc.of_space(b"FCLR"),
        "connected through Lab": icc.of_connection_space(b"Lab "),
        "connected through nonsense": icc.of_connection_space(b"\xff\xff\xff\xff"),
        "cut in half": icc.srgb()[: len(icc.srgb()) // 2],
        "cut to its head": icc.srgb()[:128],
        "of 4 billion tags": icc.of_tags(2**32 - 1),
        "of 100 tags of nonsense": icc.of_tags(100, b"\0\0\1\0"),
        "of a curve of 4 billion points": icc.of_curve(2**32 - 1),
        "of a curve of 100 million points": icc.of_curve(100_000_000),
        "of a name in 4 billion languages": icc.of_text(2**32 - 1),
        "of zeros": bytes(4096),
        "with a table": icc.table(3, 17),
        "of CMYK with a table": icc.table(4, 9, b"CMYK"),
    }
    return [
        taken(f"a PNG with a profile {name}", PNG,
              lambda p=profile: png(SMALL, before=chunk(b"iCCP", b"a\0\0" + zlib.compress(p))))  # type: ignore[misc]
        for name, profile in profiles.items()
    ]  # fmt: skip


def chunk_cases() -> list[Case]:
    """Every one of them."""
    return [*_chunks(), *_behind(), *_profiles()]
