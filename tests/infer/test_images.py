from __future__ import annotations

import io
import json

import pytest
from PIL import Image

from tests.conftest import picture_bytes
from umrgen_core.config import Settings
from umrgen_core.errors import RunError
from umrgen_core.files import FileStore, Shelf
from umrgen_core.jobs import Pin
from umrgen_core.profiles import ModelProfile
from umrgen_infer.images import encode_png, fit_picture, fit_reference, load_references


@pytest.fixture
def free() -> ModelProfile:
    return ModelProfile(pipeline="Flux2KleinPipeline", path="x", multiple_px=16)


@pytest.fixture
def native(settings: Settings) -> ModelProfile:
    return settings.models["tiny-klein"]


def test_a_png_is_lossless_and_carries_its_metadata() -> None:
    image = Image.open(io.BytesIO(picture_bytes(200, 120)))
    again = Image.open(io.BytesIO(encode_png(image, {"seed": 2**53 - 1})))
    assert again.tobytes() == image.tobytes()
    assert json.loads(again.text["umrgen"]) == {"seed": 2**53 - 1}


def test_a_reference_keeps_its_proportions_in_the_native_square(native: ModelProfile) -> None:
    wide = Image.new("RGB", (400, 100), "grey")
    wide.paste("red", (150, 0, 250, 100))
    fitted = fit_reference(wide, native)
    assert fitted.size == (64, 64)
    assert fitted.getpixel((32, 32)) == (255, 0, 0)
    assert fitted.getpixel((32, 5)) == (255, 255, 255)  # the padding
    reds = [x for x in range(64) if fitted.getpixel((x, 32))[1] < 64]
    assert 14 <= len(reds) <= 18


def test_a_model_without_a_native_size_gets_references_as_they_are(free: ModelProfile) -> None:
    image = Image.new("RGB", (333, 222))
    assert fit_reference(image, free) is image


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
    (image,) = load_references(files, (pin_of(files, buffer.getvalue()),), free)
    assert (image.mode, image.getpixel((0, 0))) == ("RGB", (255, 255, 255))


def test_outputs_serve_as_references(files: FileStore, free: ModelProfile) -> None:
    (image,) = load_references(files, (pin_of(files, picture_bytes(70, 70), Shelf.OUTPUTS),), free)
    assert image.size == (70, 70)


@pytest.mark.parametrize("damage", ["missing", "changed", "not a picture"])
def test_a_file_that_is_not_what_its_row_says_is_refused(files: FileStore, free: ModelProfile, damage: str) -> None:
    pin = pin_of(files, b"no picture at all" if damage == "not a picture" else picture_bytes())
    path = files.path(Shelf.REFERENCES, "a.png")
    if damage == "missing":
        path.unlink()
    elif damage == "changed":
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(RunError) as refused:
        load_references(files, (pin,), free)
    assert refused.value.error_code == "invalid_reference"
    assert "Reference 1" in refused.value.message
