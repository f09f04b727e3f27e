"""The security advisories of Pillow of 2025 and 2026, and what stands between each and an upload.

Three things do: the pinned Pillow is newer than every fix; a format that is not ours is refused before Pillow
sees it, and its plugin is never loaded; and of Pillow's interface only a small part is used. For the advisories
that touch PNG, JPEG, WebP, EXIF or colour profiles the malformed file itself goes through the sanitiser.
"""

from __future__ import annotations

import ast
import io
import json
import re
import struct
import subprocess
import sys
import time

import PIL
import pytest
from PIL import Image, ImageCms

from tests.conftest import ROOT
from tests.hostile import icc
from tests.hostile.advisories import ADVISORIES, Advisory
from tests.hostile.build import (
    after_soi,
    chunk,
    encode,
    icc_pieces,
    ihdr,
    in_pieces,
    noise,
    png,
    riff,
    segment,
    vp8x,
    webp_payload,
)
from tests.hostile.corpus import corpus
from umrgen_api.image_headers import RefusedImage, read_header
from umrgen_api.sanitiser import sanitise

SANITISER = ROOT / "umrgen_api" / "sanitiser.py"


def version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


@pytest.mark.parametrize("advisory", ADVISORIES, ids=lambda advisory: advisory.ids)
def test_the_pinned_pillow_has_the_fix(advisory: Advisory) -> None:
    [pinned] = re.findall(r"^pillow==([\d.]+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert version(pinned) >= version(advisory.fixed)
    assert version(PIL.__version__) >= version(advisory.fixed)


@pytest.mark.parametrize("advisory", [a for a in ADVISORIES if a.files], ids=lambda advisory: advisory.ids)
def test_a_format_that_it_needs_is_refused_from_its_first_bytes(advisory: Advisory) -> None:
    for name in advisory.files:
        [hostile] = [known for known in corpus() if known.name.startswith(f"a file of {name} named")]
        with pytest.raises(RefusedImage, match="not a PNG, JPEG or WebP"):
            read_header(hostile.make())


LOADED = """
import io, json, sys
from umrgen_api.sanitiser import sanitise
for path in sys.argv[1:]:
    try:
        sanitise(open(path, "rb").read(), io.BytesIO())
    except Exception:
        pass
print(json.dumps(sorted(name[4:] for name in sys.modules if name.startswith("PIL."))))
"""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The modules of Pillow in a process that has seen a file of every kind."""
    folder, wanted = (
        tmp_path_factory.mktemp("loaded"),
        ("EXIF", "profile", "animated", "named .", "progressive", "bits"),
    )
    paths = []
    for hostile in corpus():
        if not hostile.slow and any(word in hostile.name for word in wanted):
            paths.append(folder / hostile.filename)
            paths[-1].write_bytes(hostile.make())
    command = [sys.executable, "-I", "-c", LOADED, *map(str, paths)]
    return set(json.loads(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout))


def test_no_module_of_pillow_that_an_advisory_names_is_ever_loaded(loaded: set[str]) -> None:
    named = {plugin for advisory in ADVISORIES for plugin in advisory.plugins}
    assert {"PngImagePlugin", "JpegImagePlugin", "WebPImagePlugin"} <= loaded
    assert named & loaded == set()


def test_nothing_of_pillow_that_an_advisory_needs_is_used() -> None:
    used = {node.attr for node in ast.walk(ast.parse(SANITISER.read_text())) if isinstance(node, ast.Attribute)}
    assert used & {name for advisory in ADVISORIES for name in advisory.names} == set()


def test_only_the_sanitiser_uses_pillow_and_only_these_parts_of_it() -> None:
    parts = {"Image", "ImageCms", "JpegImagePlugin", "PngImagePlugin", "TiffImagePlugin", "WebPImagePlugin"}
    for path in (ROOT / "umrgen_api").rglob("*.py"):
        imported = {
            alias.name
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.ImportFrom | ast.Import)
            for alias in node.names
            if (getattr(node, "module", None) or alias.name).split(".")[0] == "PIL"
        }
        assert imported == (parts if path == SANITISER else set()), path


def test_only_our_own_formats_are_saved() -> None:
    calls = [node for node in ast.walk(ast.parse(SANITISER.read_text())) if isinstance(node, ast.Call)]
    saves = [ast.unparse(node) for node in calls if isinstance(node.func, ast.Attribute) and node.func.attr == "save"]
    assert sorted(call.split("'")[1] for call in saves) == ["JPEG", "PNG", "WEBP"]


def clean(data: bytes) -> tuple[Image.Image, float]:
    """The clean copy, and the processor seconds that it took."""
    buffer, began = io.BytesIO(), time.process_time()
    sanitise(data, buffer)
    image = Image.open(buffer)
    image.load()
    return image, time.process_time() - began


REPEATED = b"Exif\0\0" * 1_500_000


def test_an_exif_signature_repeated_for_9_mb_costs_no_time() -> None:
    payload = webp_payload(noise())
    files = [
        after_soi(in_pieces(b"Exif\0\0", REPEATED)),
        png(ihdr(96, 80), before=chunk(b"eXIf", REPEATED)),
        riff(vp8x(96, 80, 8), payload, (b"EXIF", REPEATED)),
    ]
    for data in files:
        began = time.process_time()
        try:
            clean(data)
        except RefusedImage as refusal:
            assert "damaged" in str(refusal)  # noqa: PT017 - either end is a good one
        assert time.process_time() - began < 1


def frame(width: int, height: int, components: int = 1, marker: int = 0xC0) -> bytes:
    """A JPEG frame header."""
    layers = b"".join(bytes([layer + 1, 0x11, 0]) for layer in range(components))
    return segment(marker, struct.pack(">BHHB", 8, height, width, components) + layers)


WIDER = [
    frame(width, 80, components, marker)
    for width in (64, 95, 97, 4096)
    for components in (1, 3, 4)
    for marker in (0xC0, 0xC2, 0xC8, 0xDE)
]


@pytest.mark.parametrize("before", [True, False])
def test_a_jpeg_whose_frames_disagree_about_its_width_is_refused(before: bool) -> None:
    honest = encode(noise(), "JPEG")
    scan = honest.index(b"\xff\xda")
    for other in WIDER:
        data = after_soi(other, honest) if before else honest[:scan] + other + honest[scan:]
        with pytest.raises(RefusedImage):
            clean(data)


@pytest.mark.parametrize("sampling", [0x11, 0x12, 0x14, 0x21, 0x22, 0x24, 0x41, 0x42, 0x44])
@pytest.mark.parametrize("width", [64, 65, 4095, 8191])
def test_a_jpeg_of_any_sampling_is_read_within_its_lines(width: int, sampling: int) -> None:
    honest = bytearray(encode(noise(width, 640), "JPEG", quality=30))
    at = bytes(honest).index(b"\xff\xc0") + 11
    honest[at] = sampling
    try:
        image, _ = clean(bytes(honest))
    except RefusedImage:
        return
    assert image.width <= width
    assert image.width * image.height <= 4_000_000


@pytest.mark.parametrize("offset", [0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 8192, 97])
@pytest.mark.parametrize("side", [1, 96, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_png_frame_outside_its_picture_is_refused(offset: int, side: int) -> None:
    control = struct.pack(">IIIIIHHBB", 0, side, side, offset, offset, 0, 1, 0, 0)
    animated = chunk(b"acTL", struct.pack(">II", 1, 0))
    for before in (chunk(b"fcTL", control), animated + chunk(b"fcTL", control)):
        with pytest.raises(RefusedImage):
            clean(png(ihdr(96, 80), before=before))


@pytest.mark.parametrize("image_format", ["PNG", "WEBP"])
def test_frames_of_different_modes_are_never_decoded(image_format: str) -> None:
    frames = [noise(mode="RGB"), noise(mode="RGBA", seed=1), noise(mode="L", seed=2).convert("RGB")]
    data = encode(frames[0], image_format, save_all=True, append_images=frames[1:])
    with pytest.raises(RefusedImage, match="animated"):
        read_header(data)


@pytest.mark.parametrize("size", [0, 1, 65_400, 65_519, 65_520, 130_000])
@pytest.mark.parametrize("comment", [0, 1, 65_533])
def test_neither_profile_nor_comment_of_a_jpeg_is_saved_again(size: int, comment: int) -> None:
    profile = icc.srgb() + bytes(size)
    data = after_soi(icc_pieces(profile, 1 + len(profile) // 65_000) + segment(0xFE, b"x" * comment))
    buffer = io.BytesIO()
    sanitise(data, buffer)
    assert b"ICC_PROFILE" not in buffer.getvalue()
    assert segment(0xFE, b"x" * comment) not in buffer.getvalue()


@pytest.mark.parametrize("space", [b"RGB ", b"GRAY", b"CMYK", b"Lab ", b"XYZ ", b"4CLR", b"FCLR"])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK"])
def test_a_profile_of_any_space_gives_rgb_of_the_same_size(space: bytes, mode: str) -> None:
    picture = noise(mode="L" if mode == "I;16" else "RGB").convert(mode)
    for profile in (icc.of_space(space), icc.table(4 if space == b"CMYK" else 3, 3, space)):
        data = encode(picture, "JPEG" if mode == "CMYK" else "PNG", icc_profile=profile)
        image, _ = clean(data)
        assert (image.size, image.mode) == ((96, 80), "RGBA" if mode in ("LA", "RGBA") else "RGB")


def test_a_profile_is_written_to_a_picture_of_its_own_mode_by_pillow() -> None:
    srgb = ImageCms.createProfile("sRGB")
    transform = ImageCms.buildTransform(srgb, srgb, "RGB", "RGB")
    with pytest.raises(ValueError, match="mode"):
        transform.apply(noise(), Image.new("L", (96, 80)))
