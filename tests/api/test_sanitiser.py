from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, JpegImagePlugin, PngImagePlugin

from umrgen_api.sanitiser import sanitise

FORMATS = ["PNG", "JPEG", "WEBP"]
SECRET = b"SECRET-POSITION"


def encode(image: Image.Image, image_format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def clean(data: bytes) -> tuple[Image.Image, bytes]:
    """The picture as it is stored, decoded, and its bytes."""
    buffer = io.BytesIO()
    told = sanitise(data, buffer)
    image = Image.open(io.BytesIO(buffer.getvalue()))
    image.load()
    assert (told["width"], told["height"], told["format"]) == (*image.size, image.format.lower())
    return image, buffer.getvalue()


def gradient(width: int = 96, height: int = 64) -> Image.Image:
    y, x = np.mgrid[0:height, 0:width]
    return Image.fromarray(np.dstack([x * 2, y * 3, x + y]).astype(np.uint8))


@pytest.mark.parametrize("image_format", ["PNG", "WEBP"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "1", "P"])
def test_png_and_webp_keep_every_pixel(image_format: str, mode: str) -> None:
    source = gradient().convert("RGBA")
    source.putalpha(gradient().getchannel(0))
    options = {"lossless": True, "exact": True} if image_format == "WEBP" else {}
    sent = encode(source.convert(mode), image_format, **options)
    wanted = Image.open(io.BytesIO(sent))
    wanted = wanted.convert("RGBA" if wanted.has_transparency_data else "RGB")
    image, _ = clean(sent)
    assert (image.format, image.mode) == (image_format, wanted.mode)
    assert image.tobytes() == wanted.tobytes()


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_stays_jpeg_at_full_colour_resolution(mode: str, progressive: bool) -> None:
    image, _ = clean(encode(gradient().convert(mode), "JPEG", quality=95, subsampling=0, progressive=progressive))
    assert (image.format, image.mode, JpegImagePlugin.get_sampling(image)) == ("JPEG", "RGB", 0)
    wanted = np.asarray(gradient().convert(mode).convert("RGB"), dtype=int)
    assert np.abs(np.asarray(image, dtype=int) - wanted).mean() < 3


def test_the_transparency_of_a_palette_becomes_alpha() -> None:
    source = Image.new("P", (64, 64), 1)
    source.putpalette([255, 0, 0, 0, 255, 0])
    source.paste(0, (0, 0, 32, 64))
    image, _ = clean(encode(source, transparency=0))
    assert image.mode == "RGBA"
    assert (image.getpixel((0, 0))[3], image.getpixel((40, 0))) == (0, (0, 255, 0, 255))


def test_one_transparent_colour_becomes_alpha() -> None:
    source = Image.new("RGB", (64, 64), (9, 9, 9))
    source.paste((1, 2, 3), (0, 0, 32, 64))
    image, _ = clean(encode(source, transparency=(1, 2, 3)))
    assert (image.mode, image.getpixel((0, 0))[3], image.getpixel((40, 0))) == ("RGBA", 0, (9, 9, 9, 255))


def test_sixteen_bit_grey_is_scaled_and_not_clipped() -> None:
    values = np.linspace(0, 65535, 256 * 64).reshape(64, 256).astype(np.uint16)
    image, _ = clean(encode(Image.fromarray(values)))
    told = np.asarray(image, dtype=int)
    assert image.mode == "RGB"
    assert np.abs(told - (values // 257)[:, :, None]).max() <= 1
    assert (told.min(), told.max()) == (0, 255)


CORNERS = {1: (0, 0), 2: (1, 0), 3: (1, 1), 4: (0, 1), 5: (0, 0), 6: (1, 0), 7: (1, 1), 8: (0, 1)}


@pytest.mark.parametrize("image_format", FORMATS)
@pytest.mark.parametrize("orientation", CORNERS)
def test_the_orientation_is_applied_and_forgotten(image_format: str, orientation: int) -> None:
    source = Image.new("RGB", (128, 64), "black")
    source.paste("white", (0, 0, 64, 32))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image, _ = clean(encode(source, image_format, exif=exif))
    assert image.size == ((128, 64) if orientation < 5 else (64, 128))
    right, below = CORNERS[orientation]
    quarters = [(x, y) for x in (0, 1) for y in (0, 1)]
    middles = {(x, y): (image.width * (1 + 2 * x) // 4, image.height * (1 + 2 * y) // 4) for x, y in quarters}
    corners = [corner for corner, middle in middles.items() if image.getpixel(middle)[0] > 128]
    assert corners == [(right, below)]
    assert image.getexif().get(0x0112, 1) == 1


def swapped_profile() -> bytes:
    """A profile of sRGB in which red and green have changed places."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, green = profile.index(b"rXYZ", 128), profile.index(b"gXYZ", 128)
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(profile)


COLOURED = [("PNG", "RGB"), ("PNG", "RGBA"), ("JPEG", "RGB"), ("WEBP", "RGB"), ("WEBP", "RGBA")]


@pytest.mark.parametrize(("image_format", "mode"), COLOURED)
def test_colours_are_brought_to_srgb_and_the_profile_dropped(image_format: str, mode: str) -> None:
    source = Image.new(mode, (64, 64), (255, 0, 0, 77)[: len(mode)])
    image, _ = clean(encode(source, image_format, icc_profile=swapped_profile(), lossless=True))
    red, green, blue, *alpha = image.getpixel((10, 10))
    assert (red < 10, green > 245, blue < 10) == (True, True, True)
    assert alpha == ([77] if mode == "RGBA" else [])
    assert "icc_profile" not in image.info


@pytest.mark.parametrize("profile", [b"nonsense", b"", b"\x00" * 200])
def test_a_profile_that_is_none_is_ignored(profile: bytes) -> None:
    image, _ = clean(encode(gradient(), icc_profile=profile))
    assert image.tobytes() == gradient().tobytes()


@pytest.mark.parametrize("image_format", FORMATS)
def test_no_metadata_is_left(image_format: str) -> None:
    exif = Image.Exif()
    exif[0x010E], exif[0x0112] = SECRET.decode(), 3
    text = PngImagePlugin.PngInfo()
    for add in (text.add_text, text.add_itxt):
        add("Comment", SECRET.decode())
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    options = {"exif": exif, "xmp": b"<x>" + SECRET + b"</x>", "icc_profile": profile}
    only = {"PNG": {"pnginfo": text, "dpi": (99, 99)}, "JPEG": {"comment": SECRET, "dpi": (99, 99)}, "WEBP": {}}
    sent = encode(gradient(), image_format, **options, **only[image_format])
    assert SECRET in sent
    image, stored = clean(sent + SECRET)
    assert SECRET not in stored
    of_every_file = {"jfif", "jfif_version", "jfif_unit", "jfif_density", "background", "loop", "duration", "timestamp"}
    assert set(image.info) <= of_every_file


@pytest.mark.parametrize(("width", "height"), [(2000, 2000), (2001, 2000), (3000, 1500), (64, 8192), (8192, 4882)])
def test_a_picture_is_fitted_within_4_megapixels_and_never_enlarged(width: int, height: int) -> None:
    image, _ = clean(encode(Image.new("L", (width, height), 128), "JPEG"))
    assert image.width * image.height <= 4_000_000
    if width * height <= 4_000_000:
        assert image.size == (width, height)
    else:
        assert image.width * image.height > 3_990_000
        assert image.width / image.height == pytest.approx(width / height, rel=0.01)
