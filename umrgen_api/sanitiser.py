"""The child process that alone decodes uploads: `python -m umrgen_api.sanitiser PARENT_PID`.

Started by exec with one end of a socket pair as its standard input. For each picture it gets a JSON
line with two descriptors (in, out) and answers a JSON line. It may open nothing else, has limits on
memory, processor time and file size, and ends with its parent (PDEATHSIG, and end of input).
"""

from __future__ import annotations

import ctypes
import io
import json
import os
import resource
import signal
import socket
import struct
import sys
import zlib
from typing import Any, BinaryIO

from PIL import Image, ImageCms, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

from umrgen_api.fates import Fate
from umrgen_api.image_headers import Header, RefusedImage, read_header

MAX_STORED_PX = 4_000_000
MAX_OUTPUT_BYTES = 64 << 20
DESCRIPTORS = 5
"""Standard input, output and error, and the two of the picture: nothing else can be opened."""

PRELOADED = (TiffImagePlugin,)
"""Pillow loads this at the first EXIF it meets, when nothing more can be opened."""

UPRIGHT = 1
"""How EXIF calls a picture that needs no turning."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PR_SET_PDEATHSIG = 1
_EXTENSIONS = {"jpeg": "jpg", "png": "png", "webp": "webp"}
_REFUSED = (OSError, ValueError, SyntaxError, EOFError, ArithmeticError, LookupError, TypeError, AttributeError,
            struct.error, zlib.error)  # fmt: skip


def sanitise(data: bytes, output: BinaryIO) -> dict[str, Any]:
    """Write a clean re-encode of the picture in `data` to `output` and describe both.

    Orientation applied, sRGB, 8-bit RGB or RGBA, no metadata, fitted within 4 Mpx; JPEG stays JPEG
    (quality 95, 4:4:4), PNG and WebP stay lossless. Raises RefusedImage with the reason.
    """
    header = read_header(data)
    try:
        clean = _decode(header, data)
    except (Image.DecompressionBombError, MemoryError):
        raise RefusedImage(Fate.TOO_LARGE_DECODED, "decoding it takes more memory than is allowed") from None
    except _REFUSED as error:
        raise RefusedImage(Fate.DAMAGED, f"it is damaged or not a plain {header.format.upper()} file") from error
    _encode(clean, header.format, output)
    return {
        "format": header.format,
        "extension": _EXTENSIONS[header.format],
        "width": clean.width,
        "height": clean.height,
        "source_width": header.width,
        "source_height": header.height,
    }


def _decode(header: Header, data: bytes) -> Image.Image:
    image = _open(header.format, io.BytesIO(data))
    if image.size != (header.width, header.height):  # a later header that says otherwise
        raise RefusedImage(
            Fate.DAMAGED, f"its header is not the one that its decoder finds ({image.width}x{image.height})"
        )
    if getattr(image, "n_frames", 1) != 1:
        raise RefusedImage(Fate.ANIMATED, "it is animated; send a still image")
    profile = image.info.get("icc_profile")
    if isinstance(image, JpegImagePlugin.JpegImageFile) and image.mode in ("RGB", "L"):
        image.draft(image.mode, _fitted(image.size))  # decodes at a fraction of the size where that is enough
    image.load()
    orientation = _read_orientation(image)  # only now: Pillow would read a PNG's pixels here, errors and all
    pixels = _to_srgb(_to_eight_bit(image), profile)
    pixels = pixels.resize(_fitted(pixels.size), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return _bare_copy(_turned(pixels, orientation))


def _read_orientation(image: Image.Image) -> int:
    """1 to 8 as EXIF counts them; 1 where the EXIF is broken, which says nothing about the pixels."""
    try:
        orientation = image.getexif().get(0x0112, UPRIGHT)
    except _REFUSED:
        return UPRIGHT
    return orientation if isinstance(orientation, int) and orientation in _TURNS else UPRIGHT


def _open(image_format: str, stream: io.BytesIO) -> Image.Image:
    # The plugin's class, not Image.open: a JPEG with more pictures behind it stays its first picture.
    opener: Any = {
        "jpeg": JpegImagePlugin.JpegImageFile,
        "png": PngImagePlugin.PngImageFile,
        "webp": WebPImagePlugin.WebPImageFile,
    }[image_format]
    return opener(stream)  # type: ignore[no-any-return]


def _fitted(size: tuple[int, int]) -> tuple[int, int]:
    width, height = size
    scale = min(1.0, (MAX_STORED_PX / (width * height)) ** 0.5)
    return max(1, int(width * scale)), max(1, int(height * scale))


def _to_eight_bit(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        # 16-bit grey: convert() would clip everything above 255.
        return image.convert("I").point(lambda value: value * (1 / 257)).convert("L")
    if image.mode in ("RGB", "RGBA", "L", "CMYK"):
        return image
    has_alpha = image.mode in ("LA", "PA", "La", "RGBa") or "transparency" in image.info
    return image.convert("RGBA" if has_alpha else "RGB")


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    if "transparency" in image.info and image.mode in ("RGB", "L"):
        image = image.convert("RGBA")
    target = "RGBA" if image.mode == "RGBA" else "RGB"
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode=target)
            if converted is not None:
                return converted
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            pass  # a profile that does not fit its picture is worth nothing
    return image.convert(target)


def _bare_copy(image: Image.Image) -> Image.Image:
    """The pixels alone, without anything that was known about them."""
    copy = Image.new(image.mode, image.size)
    copy.paste(image)
    return copy


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    return image if orientation == UPRIGHT else image.transpose(_TURNS[orientation])


def _encode(image: Image.Image, image_format: str, output: BinaryIO) -> None:
    if image_format == "jpeg":
        image.save(output, "JPEG", quality=95, subsampling=0)
    elif image_format == "png":
        image.save(output, "PNG", compress_level=1)
    else:
        image.save(output, "WEBP", lossless=True, quality=0, method=0, exact=True)


def serve(channel: socket.socket, cpu_s: int) -> None:
    """Answer requests until the parent closes the channel."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(channel, 4096, 2)
        if not message:
            return
        spent_s = int(sum(os.times()[:2]))  # the limit counts whole seconds: rounded down, cpu_s is the most
        resource.setrlimit(resource.RLIMIT_CPU, (spent_s + cpu_s, resource.RLIM_INFINITY))
        channel.sendall(json.dumps(_serve_one(*descriptors)).encode() + b"\n")


def _serve_one(source_fd: int, output_fd: int) -> dict[str, Any]:
    with open(source_fd, "rb") as source, open(output_fd, "wb") as output:
        try:
            return {"ok": True, **sanitise(source.read(), output)}
        except RefusedImage as refusal:
            return {"ok": False, "reason": refusal.reason, "fate": refusal.fate}
        except (OSError, MemoryError):
            reason = "re-encoding it takes more memory or space than is allowed"
            return {"ok": False, "reason": reason, "fate": Fate.TOO_LARGE_DECODED}


def _confine(parent_pid: int, memory_bytes: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        raise SystemExit("the parent has ended")
    Image.MAX_IMAGE_PIXELS = None  # sizes are checked from the header and again after opening
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_OUTPUT_BYTES, MAX_OUTPUT_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))


def main() -> None:
    """Entry of the child."""
    parent_pid, memory_bytes, cpu_s = (int(argument) for argument in sys.argv[1:4])
    channel = socket.socket(fileno=0)
    _encode(Image.new("RGB", (64, 64)), "webp", io.BytesIO())  # loads what is loaded lazily
    ImageCms.createProfile("sRGB")
    _confine(parent_pid, memory_bytes)
    channel.sendall(b"ready\n")
    serve(channel, cpu_s)


if __name__ == "__main__":
    main()
