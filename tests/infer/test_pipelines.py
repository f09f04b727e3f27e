"""The embedded model through the same loading code as any other. Nothing is faked here."""

from __future__ import annotations

from typing import Any

import pytest
from PIL import Image, ImageChops

from umrgen_core.config import Settings
from umrgen_core.errors import ConfigError
from umrgen_core.profiles import ModelProfile
from umrgen_infer.lease import RunStopped, StopReason
from umrgen_infer.painter import Commission, Painter
from umrgen_infer.pipelines.load import load_painter


@pytest.fixture(scope="module")
def profile() -> ModelProfile:
    from tests.conftest import ROOT
    from umrgen_core.config import load_settings

    return load_settings(ROOT / "config.toml").models["tiny-klein"]


@pytest.fixture(scope="module")
def painter(profile: ModelProfile) -> Painter:
    return load_painter("tiny-klein", profile, threads=0)


def commission(**changes: Any) -> Commission:
    fields = {"prompt": "a red circle on a white background", "negative": "", "width": 64, "height": 64, "steps": 4}
    return Commission(**{**fields, "seed": 1, "references": (), **changes})


def paint(painter: Painter, **changes: Any) -> Image.Image:
    return painter.paint(commission(**changes), lambda _: None).image


def differ(one: Image.Image, other: Image.Image) -> bool:
    return ImageChops.difference(one, other).getbbox() is not None


def test_the_same_seed_paints_the_same_picture_and_another_seed_another(painter: Painter) -> None:
    first = paint(painter)
    assert (first.size, first.mode) == ((64, 64), "RGB")
    assert not differ(first, paint(painter))
    assert differ(first, paint(painter, seed=2))


def test_every_step_is_reported_and_every_stage_timed(painter: Painter) -> None:
    steps: list[int] = []
    painting = painter.paint(commission(steps=6), steps.append)
    assert steps == [1, 2, 3, 4, 5, 6]
    assert all(painting.timings[stage] > 0 for stage in ("encode", "denoise", "decode"))


def test_a_run_stopped_between_steps_leaves_the_pipeline_clean(painter: Painter) -> None:
    before = paint(painter)

    def stop(step: int) -> None:
        if step == 2:
            raise RunStopped(StopReason.CANCELLED)

    with pytest.raises(RunStopped):
        painter.paint(commission(), stop)
    assert not differ(before, paint(painter))


def test_references_reach_the_model(painter: Painter) -> None:
    prompt = "a circle in the colour of the reference"
    red, blue = (Image.new("RGB", (64, 64), colour) for colour in ("red", "blue"))
    assert differ(paint(painter, prompt=prompt, references=(red,)), paint(painter, prompt=prompt, references=(blue,)))
    assert differ(
        paint(painter, prompt=prompt, references=(red, blue)), paint(painter, prompt=prompt, references=(blue, red))
    )


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"pipeline": "NoSuchPipeline"}, "NoSuchPipeline"),
        ({"path": "/nowhere"}, "model_index.json"),
        ({"arguments": {"strength": 0.5}}, "'strength'"),
        ({"negative": True}, "'negative_prompt'"),
    ],
)
def test_a_profile_that_does_not_fit_is_refused_by_name(
    profile: ModelProfile, changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(ConfigError, match=r"models\.mine") as refused:
        load_painter("mine", profile.model_copy(update=changes), threads=0)
    assert named in refused.value.message


def test_the_shipped_profile_paints_natively(settings: Settings) -> None:
    size = settings.models["tiny-klein"].render_size(1024, 768)
    assert (size.width, size.height) == (64, 64)
