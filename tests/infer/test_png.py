"""The PNG encoder against Pillow's decoder, and its chunks one by one."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from umrgen_infer.png import SIGNATURE, encode_png


def list_chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of each chunk; checks every length and checksum, and that nothing follows the last."""
    assert content.startswith(SIGNATURE)
    at = len(SIGNATURE)
    while at < len(content):
        (length,) = struct.unpack_from(">I", content, at)
        kind, data = content[at + 4 : at + 8], content[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", content, at + 8 + length) == (zlib.crc32(kind + data),)
        yield kind, data
        at += 12 + length
    assert at == len(content)


def make_picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """A soft picture with a little noise, as models paint them."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (max(2, height // 32), max(2, width // 32), 3), dtype=np.uint8)
    soft = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
    return Image.fromarray((soft + random.normal(0, 3, soft.shape)).clip(0, 255).astype(np.uint8))


def decode(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content), formats=["PNG"])
    image.load()
    return image


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (64, 64), (333, 222), (1024, 768)])
def test_a_png_is_lossless_and_carries_its_metadata(size: tuple[int, int]) -> None:
    image, metadata = make_picture(*size), {"seed": 2**53 - 1, "prompt": "Zürich 🌲\0", "references": []}
    again = decode(encode_png(image, metadata))
    assert (again.mode, again.size) == ("RGB", size)
    assert again.tobytes() == image.tobytes()
    assert json.loads(again.text["umrgen"]) == metadata


@settings(max_examples=60, deadline=None)
@given(width=st.integers(1, 40), height=st.integers(1, 40), seed=st.integers(0, 1 << 32), levels=st.integers(1, 256))
def test_any_pixels_come_back(width: int, height: int, seed: int, levels: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, levels, (height, width, 3), dtype=np.uint8)
    assert decode(encode_png(Image.fromarray(pixels), {})).tobytes() == pixels.tobytes()


def test_its_chunks_are_the_four_that_every_reader_knows() -> None:
    chunks = dict(list_chunks(encode_png(make_picture(20, 10), {"seed": 1})))
    assert list(chunks) == [b"IHDR", b"tEXt", b"IDAT", b"IEND"]
    assert struct.unpack(">IIBBBBB", chunks[b"IHDR"]) == (20, 10, 8, 2, 0, 0, 0)
    assert chunks[b"tEXt"] == b'umrgen\0{"seed": 1}'
    assert len(zlib.decompress(chunks[b"IDAT"])) == 10 * (1 + 3 * 20)  # zlib's own check of the stream included


def test_a_picture_that_is_a_view_of_others_pixels_is_written_right() -> None:
    pixels = np.asarray(make_picture(64, 64))
    flipped = Image.fromarray(pixels).transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    assert decode(encode_png(flipped, {})).tobytes() == pixels[::-1].tobytes()


@pytest.mark.parametrize("mode", ["RGBA", "L", "P", "CMYK"])
def test_only_rgb_is_written(mode: str) -> None:
    with pytest.raises(ValueError, match=f"not {mode}"):
        encode_png(Image.new(mode, (8, 8)), {})


def test_it_is_about_as_small_as_pillows() -> None:
    image, buffer = make_picture(512, 512), io.BytesIO()
    image.save(buffer, "PNG", compress_level=1, compress_type=zlib.Z_RLE)
    assert len(encode_png(image, {})) < 1.1 * len(buffer.getvalue())
