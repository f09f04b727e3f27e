"""What a pipeline computes and never reads is left out, and nobody can tell from the picture."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.infer.families.family import Family
from tests.infer.families.flux2_klein import KLEIN, KLEIN_KV, TEXT_LAYERS
from tests.infer.families.flux_kontext import KONTEXT
from tests.infer.families.qwen_edit import QWEN_EDIT
from tests.infer.families.sdxl import SDXL
from tests.infer.families.shelf import Shelf, least_references, open_shelf, paint, shrink_references
from tests.infer.families.text import build_qwen3
from tests.infer.families.z_image import Z_IMAGE, Z_IMAGE_IMG2IMG
from umrgen_core.profiles import ModelProfile
from umrgen_infer.pipelines.shortcuts import skip_unused

Z_IMAGE_LAYERS = 3
SKIPPED = {
    KLEIN: {"logits": 1, "text_layers": 1},
    KLEIN_KV: {"logits": 1, "text_layers": 1},
    Z_IMAGE: {"text_layers": 1},
    Z_IMAGE_IMG2IMG: {"text_layers": 1},
    QWEN_EDIT: {"logits": 1},
    SDXL: {},
    KONTEXT: {},
}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    with open_shelf(tmp_path_factory.mktemp("families")) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _small_references(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink_references(monkeypatch)


def profile_of(family: Family, **arguments: Any) -> ModelProfile:
    return ModelProfile(pipeline=family.pipeline, path="unread", arguments=arguments)


def count_computed(layers: Any) -> list[int]:
    """Grows by one whenever a layer computes something."""
    computed: list[int] = []
    for layer in layers:
        if hasattr(layer, "mlp"):
            layer.mlp.register_forward_hook(lambda *_: computed.append(1))
    return computed


@pytest.mark.parametrize("family", list(SKIPPED), ids=lambda family: family.name)
def test_the_picture_stays_the_same_in_every_bit(family: Family, shelf: Shelf) -> None:
    references = least_references(family)
    before = paint(shelf.pipeline(family), family, *references)
    pipeline = shelf.load(family)
    assert skip_unused(pipeline, profile_of(family)) == SKIPPED[family]
    assert (paint(pipeline, family, *references) == before).all()


def deepen(pipeline: Any, layers: int) -> None:
    """A text encoder as much too deep as the real one: klein reads 27 of Qwen3-4B's 36 layers."""
    deeper = build_qwen3(len(pipeline.tokenizer), layers)
    known = pipeline.text_encoder.state_dict()
    deeper.load_state_dict({**deeper.state_dict(), **known})
    pipeline.text_encoder = deeper.eval()


def test_klein_computes_as_many_layers_as_it_reads(shelf: Shelf) -> None:
    pipeline = shelf.load(KLEIN)
    deepen(pipeline, TEXT_LAYERS + 8)
    before = paint(pipeline, KLEIN)
    assert skip_unused(pipeline, profile_of(KLEIN))["text_layers"] == 9
    computed = count_computed(pipeline.text_encoder.model.layers)
    assert (paint(pipeline, KLEIN) == before).all()
    assert len(computed) == 27


def test_kleins_layers_are_those_of_the_profile(shelf: Shelf) -> None:
    layers = {"text_encoder_out_layers": [1, 5, 3]}
    before = paint(shelf.pipeline(KLEIN), KLEIN, **layers)
    pipeline = shelf.load(KLEIN)
    skip_unused(pipeline, profile_of(KLEIN, **layers))
    computed = count_computed(pipeline.text_encoder.model.layers)
    assert (paint(pipeline, KLEIN, **layers) == before).all()
    assert len(computed) == 5


def test_layers_counted_from_the_end_leave_the_encoder_whole(shelf: Shelf) -> None:
    pipeline = shelf.load(KLEIN)
    assert skip_unused(pipeline, profile_of(KLEIN, text_encoder_out_layers=[1, 3, -1])) == {"logits": 1}
    assert len(count_computed(pipeline.text_encoder.model.layers)) == 0
    assert all(hasattr(layer, "mlp") for layer in pipeline.text_encoder.model.layers)


def test_the_norms_output_is_not_mistaken_for_a_layers(shelf: Shelf) -> None:
    """The last hidden state is the normed one: an encoder cut exactly where klein reads would give that."""
    whole, cut = shelf.load(KLEIN), shelf.load(KLEIN)
    del cut.text_encoder.model.layers[27:]
    assert not np.array_equal(paint(whole, KLEIN), paint(cut, KLEIN))


@pytest.mark.parametrize("family", [KLEIN, Z_IMAGE], ids=lambda family: family.name)
def test_memory_of_skipped_layers_is_free(family: Family, shelf: Shelf) -> None:
    pipeline = shelf.load(family)
    decoder = getattr(pipeline.text_encoder, "model", pipeline.text_encoder)
    unread = [weakref.ref(weight) for weight in decoder.layers[-1].parameters()]
    read = [weakref.ref(weight) for weight in decoder.layers[0].parameters()]
    skip_unused(pipeline, profile_of(family))
    gc.collect()
    assert unread and all(weight() is None for weight in unread)
    assert read and all(weight() is not None for weight in read)


def test_skipping_twice_skips_once(shelf: Shelf) -> None:
    """Two pipelines over the same weights share the encoder."""
    pipeline = shelf.load(Z_IMAGE)
    before = paint(pipeline, Z_IMAGE)
    skip_unused(pipeline, profile_of(Z_IMAGE))
    assert skip_unused(pipeline, profile_of(Z_IMAGE)) == {"text_layers": 0}
    assert len(pipeline.text_encoder.layers) == Z_IMAGE_LAYERS
    assert (paint(pipeline, Z_IMAGE) == before).all()
