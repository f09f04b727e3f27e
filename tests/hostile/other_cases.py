"""Files that are no PNG, JPEG or WebP, and files that are two things at once."""

from __future__ import annotations

import io
import zipfile
from functools import partial

import numpy as np
from PIL import Image

from tests.hostile.build import encode, noise
from tests.hostile.case import Case, header, taken

SVG = b"""<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]>
<svg xmlns="http://www.w3.org/2000/svg" width="96" height="80" onload="alert(1)"><script>alert(2)</script>
<image href="http://127.0.0.1:1/x.png"/><text>&x;</text></svg>"""
MVG = (
    b"push graphic-context\nviewbox 0 0 640 480\nfill 'url(https://127.0.0.1/x.jpg\"|ls \"-la)'\npop graphic-context\n"
)
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 96 80\n%%BeginBinary: 0\n(%pipe%id) (r) file\nshowpage\n%%EOF\n"
PDF = b"%PDF-1.7\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\ntrailer<</Root 1 0 R/Prev 9>>\nstartxref\n9\n%%EOF\n"
FITS = b"".join(
    card.ljust(80)
    for card in (
        b"SIMPLE  =                    T",
        b"BITPIX  =                    8",
        b"NAXIS   =                    0",
        b"END",
    )
).ljust(2880)

PILLOW_WRITES = [
    "BMP",
    "GIF",
    "TIFF",
    "ICO",
    "ICNS",
    "PCX",
    "TGA",
    "PPM",
    "SGI",
    "DDS",
    "QOI",
    "AVIF",
    "JPEG2000",
]
MAGIC = {
    "PSD": b"8BPS\0\1" + bytes(6) + b"\0\3" + b"\0\0\0\x50" * 2 + b"\0\x08\0\3" + bytes(64),
    "FLI": bytes(4) + b"\x11\xaf" + bytes(120),
    "FTEX": b"FTEX" + bytes(60),
    "BLP": b"BLP2" + bytes(160),
    "WMF": b"\xd7\xcd\xc6\x9a\0\0" + bytes(80),
    "EMF": b"\1\0\0\0" + bytes(36) + b" EMF" + bytes(80),
    "MIC": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600),
    "FPX": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(1200),
    "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(200),
    "GRIB": b"GRIB\0\0\0\1" + bytes(60),
    "BUFR": b"BUFR\0\0\0\1" + bytes(60),
    "FITS": FITS,
    "MPEG": b"\0\0\1\xb3" + bytes(60),
    "PCD": bytes(2048) + b"PCD_" + bytes(400),
    "PIXAR": b"\x80\xe8\0\0" + bytes(500),
    "SUN": b"\x59\xa6\x6a\x95" + bytes(60),
    "McIdas": bytes(4) + b"\0\0\0\4" + bytes(300),
    "GBR": b"\0\0\0\x1c\0\0\0\2" + bytes(60),
    "DCX": b"\xb1\x68\xde\x3a" + bytes(60),
    "XVThumb": b"P7 332\n#END_OF_COMMENTS\n96 80 255\n" + bytes(7680),
    "HEIC": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(60),
    "JPEG XL": b"\xff\x0a" + bytes(60),
    "JPEG XL in a box": b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(60),
    "JPEG-LS": b"\xff\xd8\xff\xf7\0\x0b\x08\0\x50\0\x60\1\1\x11\0" + bytes(60),
    "EXR": b"\x76\x2f\x31\1\2\0\0\0" + bytes(60),
    "HDR": b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 80 +X 96\n" + bytes(60),
    "XBM": b"#define a_width 96\n#define a_height 80\nstatic char a_bits[] = {0};\n",
    "XPM": b'/* XPM */\nstatic char *a[] = {"96 80 1 1", "a c #000000"};\n',
    "SVG": SVG,
    "MVG": MVG,
    "IM": b"Image type: RGB image\r\nImage size (x*y): 96*80\r\n" + bytes(500),
    "EPS": EPS,
    "PDF": PDF,
    "WASM": b"\0asm\1\0\0\0",
    "ELF": b"\x7fELF\2\1\1" + bytes(60),
    "HTML": b"<!doctype html><script>alert(1)</script>",
    "a RIFF of sound": b"RIFF\x24\0\0\0WAVEfmt " + bytes(40),
    "gzip": b"\x1f\x8b\x08\0" + bytes(40),
}


def _zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo("index.html"), "<script>alert(1)</script>")
    return buffer.getvalue()


def _two_at_once() -> list[Case]:
    cases = []
    for image_format, extension in (("PNG", "png"), ("JPEG", "jpg"), ("WEBP", "webp")):
        extras = {
            "a ZIP": _zip,
            "a page of HTML": lambda: MAGIC["HTML"],
            "9 MB of zeros": lambda: bytes(9_000_000),
            "itself": partial(encode, noise(seed=1), image_format),
        }
        cases += [
            taken(f"a {image_format} with {name} behind it", extension,
                  lambda f=image_format, e=extra: encode(noise(), f) + e())  # type: ignore[misc]
            for name, extra in extras.items()
        ]  # fmt: skip
        cases += [
            header(f"a {image_format} behind {len(lead)} bytes more", extension,
                   lambda f=image_format, x=lead: x + encode(noise(), f))  # type: ignore[misc]
            for lead in (b"\0", b"\xef\xbb\xbf", b"GIF89a", b"%PDF-1.7\n")
        ]  # fmt: skip
    return cases


def _nothing() -> list[Case]:
    random = np.random.default_rng(0).bytes(1_000_000)
    return [
        header("an empty file", "png", lambda: b""),
        header("one byte", "png", lambda: b"\x89"),
        header("10 MB of zeros", "png", lambda: bytes(10_485_760)),
        header("1 MB of noise", "jpg", lambda: random),
        header("the signature of a PNG", "png", lambda: b"\x89PNG\r\n\x1a\n"),
        header("the signature of a JPEG", "jpg", lambda: b"\xff\xd8\xff"),
        header("the signature of a WebP", "webp", lambda: b"RIFF\0\0\0\0WEBP"),
        header("a PNG signature and noise", "png", lambda: b"\x89PNG\r\n\x1a\n" + random),
        header("a JPEG signature and noise", "jpg", lambda: b"\xff\xd8\xff" + random),
        header("a WebP signature and noise", "webp", lambda: b"RIFF\0\0\0\0WEBP" + random),
    ]


def other_cases() -> list[Case]:
    """Every one of them; all are named like a picture of ours."""
    Image.init()
    written = [
        header(f"a file of {name} named .png", "png", lambda n=name: encode(noise(), n))  # type: ignore[misc]
        for name in PILLOW_WRITES if name in Image.SAVE
    ]  # fmt: skip
    magic = [header(f"a file of {name} named .jpg", "jpg", lambda c=content: c) for name, content in MAGIC.items()]  # type: ignore[misc]
    return [*_nothing(), *written, *magic, *_two_at_once()]
