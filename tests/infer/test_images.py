from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageStat

from tests.conftest import picture_bytes
from umrgen_core.config import Settings
from umrgen_core.errors import RunError
from umrgen_core.files import FileStore, Shelf
from umrgen_core.jobs import Pin
from umrgen_core.profiles import ModelProfile, ReferencesAs, RenderSize
from umrgen_infer.images import fit_picture, load_reference, require_picture
from umrgen_infer.reference_fit import choose_fit

SIZE = RenderSize(width=128, height=96)


def make_profile(**changes: Any) -> ModelProfile:
    fields = {"references_as": ReferencesAs.LIST, "references": 2, "multiple_px": 16}
    return ModelProfile(pipeline="Flux2KleinPipeline", path="x", **{**fields, **changes})


@pytest.fixture
def free() -> ModelProfile:
    return make_profile()


@pytest.fixture
def native(settings: Settings) -> ModelProfile:
    return settings.models["tiny-klein"]


@pytest.fixture
def klein(settings: Settings) -> ModelProfile:
    return settings.models["flux2-klein-4b"]


def fit_reference(image: Image.Image, profile: ModelProfile, size: RenderSize = SIZE) -> Image.Image:
    return choose_fit(profile, size).fit(image)


def test_a_reference_keeps_its_proportions_in_the_native_square(native: ModelProfile) -> None:
    wide = Image.new("RGB", (400, 100), "grey")
    wide.paste("red", (150, 0, 250, 100))
    fitted = fit_reference(wide, native)
    assert fitted.size == (64, 64)
    assert fitted.getpixel((32, 32)) == (255, 0, 0)
    assert fitted.getpixel((32, 5)) == (255, 255, 255)  # the padding
    reds = [x for x in range(64) if fitted.getpixel((x, 32))[1] < 64]
    assert 14 <= len(reds) <= 18


def test_a_model_that_asks_for_nothing_gets_references_as_they_are(free: ModelProfile) -> None:
    image = Image.open(io.BytesIO(picture_bytes(333, 222)))
    fitted = fit_reference(image, free)
    assert fitted.size == (333, 222)
    assert fitted.tobytes() == image.tobytes()


@pytest.mark.parametrize(
    ("size", "fitted"),
    [
        ((1024, 1024), (512, 512)),
        ((2048, 512), (1024, 256)),
        ((512, 512), (512, 512)),  # within the cap: untouched
        ((300, 40), (480, 64)),  # scaled up to the shortest side
        ((2048, 256), (1448, 181)),
        ((2048, 64), (1448, 181)),  # padded to 8:1
        ((64, 2048), (181, 1448)),
    ],
)
def test_kleins_references_are_capped_in_area_side_and_aspect(
    klein: ModelProfile, size: tuple[int, int], fitted: tuple[int, int]
) -> None:
    assert fit_reference(Image.new("RGB", size), klein).size == fitted


@hypothesis_settings(max_examples=80, deadline=None)
@given(width=st.integers(1, 700), height=st.integers(1, 700), area_px=st.sampled_from([0, 20_000, 100_000]))
def test_a_reference_of_any_size_comes_within_the_bounds(width: int, height: int, area_px: int) -> None:
    profile = make_profile(reference_area_px=area_px, reference_min_px=48, reference_max_aspect=4.0)
    fitted = fit_reference(Image.new("RGB", (width, height)), profile)
    longer, shorter = max(fitted.size), min(fitted.size)
    assert shorter >= 48
    assert longer <= 4 * shorter
    assert not area_px or fitted.width * fitted.height <= area_px + longer  # a row of padding at most


def test_what_is_too_long_is_padded_on_both_sides_and_not_stretched() -> None:
    line = Image.new("RGB", (400, 50), "red")
    fitted = fit_reference(line, make_profile(reference_max_aspect=4.0))
    assert fitted.size == (400, 100)
    assert fitted.crop((0, 25, 400, 75)).getextrema() == ((255, 255), (0, 0), (0, 0))
    assert fitted.getpixel((200, 24)) == fitted.getpixel((200, 75)) == (255, 255, 255)


def test_what_denoising_starts_from_fills_the_picture_and_is_cut_evenly() -> None:
    profile = make_profile(references_as=ReferencesAs.STRENGTH, references=1, reference_strength=0.6, min_steps=4)
    wide = Image.new("RGB", (400, 100), "grey")
    wide.paste("red", (150, 0, 250, 100))
    fitted = fit_reference(wide, profile, RenderSize(width=200, height=100))
    assert fitted.size == (200, 100)
    assert fitted.getpixel((60, 5)) == fitted.getpixel((140, 95)) == (255, 0, 0)
    assert fitted.getpixel((20, 50)) == fitted.getpixel((180, 50)) == (128, 128, 128)
    for size in [(16, 2048), (640, 480), (1, 1)]:
        assert fit_reference(Image.new("RGB", size), profile).size == (128, 96)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "CMYK"])
def test_a_reference_of_any_mode_is_rgb_for_the_model(free: ModelProfile, native: ModelProfile, mode: str) -> None:
    for profile in (free, native):
        assert fit_reference(Image.new(mode, (80, 80)), profile).mode == "RGB"


def test_a_larger_picture_is_cropped_centrally(free: ModelProfile) -> None:
    size = free.render_size(100, 65)
    assert (size.width, size.height) == (112, 80)
    painted = Image.new("RGB", (112, 80), "black")
    painted.paste("white", (6, 7, 106, 72))
    cropped = fit_picture(painted, 100, 65, free)
    assert cropped.size == (100, 65)
    assert cropped.getextrema() == ((255, 255),) * 3


def test_a_native_picture_is_resized_to_any_size(native: ModelProfile) -> None:
    painted = Image.new("RGB", (64, 64), "teal")
    for size in [(64, 64), (65, 2048), (2048, 64), (1024, 768)]:
        assert fit_picture(painted, *size, native).size == size


@pytest.mark.parametrize("returned", [None, "picture", Image.new("RGB", (64, 65))])
def test_what_a_pipeline_returns_must_be_a_picture_of_the_size(returned: object) -> None:
    with pytest.raises(RunError, match="instead of 64x64"):
        require_picture(returned, 64, 64)


def pin_of(files: FileStore, content: bytes, shelf: Shelf = Shelf.REFERENCES) -> Pin:
    published = files.publish_bytes(shelf, "a.png", content)
    output_id = 1 if shelf is Shelf.OUTPUTS else None
    return Pin(0, None if output_id else 1, output_id, "a.png", published.sha256, published.bytes)


@pytest.fixture
def files(settings: Settings) -> FileStore:
    store = FileStore(settings.storage.data_dir)
    store.prepare()
    return store


def test_what_is_transparent_becomes_white(files: FileStore, free: ModelProfile) -> None:
    buffer = io.BytesIO()
    Image.new("RGBA", (64, 64), (255, 0, 0, 0)).save(buffer, "PNG")
    image = load_reference(files, pin_of(files, buffer.getvalue()), choose_fit(free, SIZE))
    assert (image.mode, image.getpixel((0, 0))) == ("RGB", (255, 255, 255))


def test_outputs_serve_as_references(files: FileStore, free: ModelProfile) -> None:
    image = load_reference(files, pin_of(files, picture_bytes(70, 70), Shelf.OUTPUTS), choose_fit(free, SIZE))
    assert image.size == (70, 70)


def test_a_large_jpeg_that_is_decoded_small_looks_as_if_it_were_decoded_whole(files: FileStore) -> None:
    soft = Image.open(io.BytesIO(picture_bytes(32, 24))).resize((1600, 1203), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    soft.save(buffer, "JPEG", quality=95)
    fit = choose_fit(make_profile(reference_area_px=30_000), SIZE)
    drafted, whole = load_reference(files, pin_of(files, buffer.getvalue()), fit), fit.fit(soft)
    assert drafted.size == whole.size == (199, 150)
    assert max(ImageStat.Stat(ImageChops.difference(drafted, whole)).mean) < 1.5


@pytest.mark.parametrize("damage", ["missing", "changed", "not a picture"])
def test_a_file_that_is_not_what_its_row_says_is_refused(files: FileStore, free: ModelProfile, damage: str) -> None:
    pin = pin_of(files, b"no picture at all" if damage == "not a picture" else picture_bytes())
    path = files.path(Shelf.REFERENCES, "a.png")
    if damage == "missing":
        path.unlink()
    elif damage == "changed":
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(RunError) as refused:
        load_reference(files, pin, choose_fit(free, SIZE))
    assert refused.value.error_code == "invalid_reference"
    assert "Reference 1" in refused.value.message
