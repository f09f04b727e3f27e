"""Pictures within every limit that cost as much as such pictures can."""

from __future__ import annotations

import zlib
from functools import cache

import numpy as np
from PIL import Image

from tests.hostile import icc
from tests.hostile.build import (
    after_soi,
    chunk,
    deflated,
    encode,
    icc_pieces,
    ihdr,
    noise,
    png,
    png_bytes,
    riff,
    tiff,
    vp8x,
    webp_payload,
)
from tests.hostile.case import Case, taken
from tests.hostile.jpeg_cases import with_scans

WIDTH, HEIGHT = 8192, 4882
"""The widest picture of no more than 40 Mpx."""


@cache
def _blocks(mode: str = "RGB", side: int = 8, levels: int = 256) -> Image.Image:
    """40 Mpx of squares of noise: much to decode in few bytes."""
    small = noise(-(-WIDTH // side), -(-HEIGHT // side), levels, mode=mode)
    return small.resize((small.width * side, small.height * side), Image.Resampling.NEAREST).crop((0, 0, WIDTH, HEIGHT))


def _png(depth: int, colour: int, interlace: int = 0, before: bytes = b"") -> bytes:
    return png(ihdr(WIDTH, HEIGHT, depth, colour, interlace), before=before)


def _paeth(depth: int, colour: int) -> bytes:
    """A PNG of 40 Mpx whose every row has the costliest filter."""
    row = b"\4" + bytes(png_bytes(WIDTH, 1, depth, colour) - 1)
    packer = zlib.compressobj(6)
    return png(
        ihdr(WIDTH, HEIGHT, depth, colour),
        idat=b"".join(packer.compress(row) for _ in range(HEIGHT)) + packer.flush(),
    )


def _progressive(mode: str, scans: int, side: int = 8, quality: int = 30) -> bytes:
    """A progressive JPEG at 4:4:4; squares of 8 px have no detail, others much."""
    data = encode(_blocks(mode, side), "JPEG", progressive=True, quality=quality, subsampling=0)
    return with_scans(data, scans)


def _profiled_png(profile: bytes, colour: int = 2) -> bytes:
    """A PNG whose every row is the same noise: no two neighbours alike, so that no colour is looked up twice."""
    row = b"\0" + np.random.default_rng(0).bytes(png_bytes(WIDTH, 1, 8, colour) - 1)
    same = b"\2" + bytes(len(row) - 1)
    packer = zlib.compressobj(6)
    idat = packer.compress(row) + b"".join(packer.compress(same) for _ in range(HEIGHT - 1)) + packer.flush()
    return png(ihdr(WIDTH, HEIGHT, 8, colour), before=chunk(b"iCCP", b"a\0\0" + zlib.compress(profile)), idat=idat)


def _noisy_png(mode: str) -> bytes:
    """As much noise as 10 MB hold, at 40 Mpx."""
    random = np.random.default_rng(0).integers(0, 4, (HEIGHT, WIDTH // 2), dtype=np.uint8)
    return encode(Image.fromarray(np.repeat(random * 85, 2, axis=1)).convert(mode), "PNG", compress_level=1)


def _laden_webp() -> bytes:
    """A lossless WebP with alpha, a profile, and EXIF of 4 MB that turns it: the most memory."""
    exif = tiff([(0x0112, 3, 1, 6), (0x010E, 7, 4_000_000, 8)], bytes(4_100_000))
    pixels = webp_payload(_blocks("RGBA", 4, 2), lossless=True, quality=0, method=0, exact=True)
    return riff(vp8x(WIDTH, HEIGHT, 16 | 32 | 8), (b"ICCP", icc.table(3, 33)), pixels, (b"EXIF", exif))


def slow_cases() -> list[Case]:
    """Every one of them, at exactly 8192x4882 pixels."""
    alpha = chunk(b"tRNS", bytes(6))
    return [
        taken("40 Mpx: PNG of zeros", "png", lambda: _png(8, 2), slow=True),
        taken("40 Mpx: PNG of 8-bit RGBA", "png", lambda: _png(8, 6), slow=True),
        taken("40 Mpx: PNG of 16-bit grey", "png", lambda: _png(16, 0), slow=True),
        taken("40 Mpx: PNG of 16-bit grey and alpha", "png", lambda: _png(16, 4), slow=True),
        taken("40 Mpx: PNG of 16-bit RGB", "png", lambda: _png(16, 2), slow=True),
        taken("40 Mpx: PNG of 16-bit RGBA", "png", lambda: _png(16, 6), slow=True),
        taken("40 Mpx: PNG of 16-bit RGBA, interlaced", "png", lambda: _png(16, 6, 1), slow=True),
        taken("40 Mpx: PNG of 1-bit grey, interlaced", "png", lambda: _png(1, 0, 1), slow=True),
        taken("40 Mpx: PNG of 8-bit grey", "png", lambda: _png(8, 0), slow=True),
        taken("40 Mpx: PNG of a palette", "png", lambda: _png(8, 3, 0, chunk(b"PLTE", bytes(768))), slow=True),
        taken("40 Mpx: PNG of a palette with alpha", "png",
              lambda: _png(8, 3, 0, chunk(b"PLTE", bytes(768)) + chunk(b"tRNS", bytes(range(256)))), slow=True),
        taken("40 Mpx: PNG of one transparent colour", "png", lambda: _png(8, 2, 0, alpha), slow=True),
        taken("40 Mpx: PNG of Paeth rows, 16-bit RGBA", "png", lambda: _paeth(16, 6), slow=True),
        taken("40 Mpx: PNG of noise", "png", lambda: _noisy_png("L"), slow=True),
        taken("40 Mpx: PNG with a profile", "png", lambda: _profiled_png(icc.srgb()), slow=True),
        taken("40 Mpx: PNG of RGBA with a profile", "png", lambda: _profiled_png(icc.srgb(), 6), slow=True),
        taken("40 Mpx: PNG with a profile of a table", "png", lambda: _profiled_png(icc.table(3, 33)), slow=True),
        taken("40 Mpx: PNG of RGBA with a profile of a table", "png",
              lambda: _profiled_png(icc.table(3, 33), 6), slow=True),
        taken("40 Mpx: JPEG", "jpg", lambda: encode(_blocks(), "JPEG", quality=30), slow=True),
        taken("40 Mpx: JPEG of grey", "jpg", lambda: encode(_blocks("L"), "JPEG", quality=30), slow=True),
        taken("40 Mpx: JPEG of CMYK", "jpg", lambda: encode(_blocks("CMYK"), "JPEG", quality=30), slow=True),
        taken("40 Mpx: JPEG, progressive", "jpg", lambda: _progressive("RGB", 10, 12), slow=True),
        taken("40 Mpx: JPEG of 64 scans", "jpg", lambda: _progressive("RGB", 64), slow=True),
        taken("40 Mpx: JPEG of CMYK in 64 scans", "jpg", lambda: _progressive("CMYK", 64, 5, 5), slow=True),
        taken("40 Mpx: JPEG with a profile of CMYK", "jpg", lambda: after_soi(
            icc_pieces(icc.table(4, 17, b"CMYK"), 40), encode(_blocks("CMYK"), "JPEG", quality=30)), slow=True),
        taken("40 Mpx: JPEG with a restart after every block", "jpg", lambda: encode(
            _blocks("L"), "JPEG", quality=30, restart_marker_blocks=1), slow=True),
        taken("40 Mpx: WebP", "webp", lambda: encode(_blocks(side=16), "WEBP", quality=30, method=0), slow=True),
        taken("40 Mpx: lossless WebP of one colour", "webp", lambda: encode(
            Image.new("RGB", (WIDTH, HEIGHT)), "WEBP", lossless=True, method=0), slow=True),
        taken("40 Mpx: lossless WebP of noise", "webp", lambda: encode(
            _blocks(side=2, levels=2), "WEBP", lossless=True, quality=0, method=0), slow=True),
        taken("40 Mpx: lossless WebP of RGBA", "webp", lambda: encode(
            _blocks("RGBA", 4, 2), "WEBP", lossless=True, quality=0, method=0, exact=True), slow=True),
        taken("40 Mpx: WebP of the lowest quality", "webp", lambda: encode(
            _blocks(), "WEBP", quality=1, method=0), slow=True),
        taken("40 Mpx: WebP with a profile", "webp", lambda: riff(vp8x(WIDTH, HEIGHT, 32), (b"ICCP", icc.table(3, 33)),
              webp_payload(_blocks(side=16), quality=30, method=0)), slow=True),
        taken("40 Mpx: lossless WebP of RGBA with a profile, turned", "webp", _laden_webp, slow=True),
        taken("25 Mpx: WebP", "webp", lambda: encode(_blocks(side=16).crop((0, 0, 6000, 4000)), "WEBP", quality=30,
              method=0), slow=True),
        taken("40 Mpx: a PNG of as many pixels as fit", "png", lambda: png(
            ihdr(WIDTH, HEIGHT, 8, 6), idat=deflated(4 * png_bytes(WIDTH, HEIGHT, 8, 6), 6)), slow=True),
    ]  # fmt: skip
