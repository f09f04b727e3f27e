"""The rack of LoRAs on a tiny klein: what is kept, what is refused, and what else is switched on meanwhile."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.infer.families.family import seeded
from tests.infer.families.flux2_klein import KLEIN
from tests.infer.families.shelf import Shelf, differ, open_shelf, paint
from umrgen_core.errors import ConfigError, RunError
from umrgen_core.loras import LoraShelf
from umrgen_core.profiles import ModelProfile
from umrgen_infer.lease import RunStopped, StopReason
from umrgen_infer.painter import Commission
from umrgen_infer.pipelines import loras
from umrgen_infer.pipelines.load import load_painter
from umrgen_infer.pipelines.loras import LoraRack
from umrgen_infer.pipelines.shortcuts import skip_unused

RANK = 2
Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    with open_shelf(tmp_path_factory.mktemp("families")) as opened:
        yield opened


@pytest.fixture(scope="module")
def pipeline(shelf: Shelf) -> Any:
    """Shared by the module: every test finds it as it was loaded, or else something stayed behind."""
    return shelf.pipeline(KLEIN)


@pytest.fixture(scope="module")
def bare(pipeline: Any) -> np.ndarray:
    return paint(pipeline, KLEIN)


def make_profile(**changes: Any) -> ModelProfile:
    fields = {"pipeline": "Flux2KleinPipeline", "path": "x", "dtype": "float32", "loras": 8}
    return ModelProfile(**{**fields, **changes})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine").mkdir()
    return tmp_path / "mine"


@pytest.fixture
def make_rack(folder: Path) -> Callable[..., LoraRack]:
    shelf = LoraShelf(str(folder.parent))

    def make(pipeline: Any, **changes: Any) -> LoraRack:
        return LoraRack(pipeline, lambda name: shelf.find_file("mine", name), make_profile(**changes))

    return make


@pytest.fixture
def rack(make_rack: Callable[..., LoraRack], pipeline: Any) -> Iterator[LoraRack]:
    made = make_rack(pipeline)
    yield made
    made.clear()


def make_weights(model: nn.Module, seed: int = 0, down: str = "lora_A", up: str = "lora_B") -> Weights:
    """A LoRA for each matrix of attention."""
    weights = {}
    with seeded(seed):
        for name, layer in model.named_modules():
            if isinstance(layer, nn.Linear) and "attn" in name:
                weights[f"transformer.{name}.{down}.weight"] = torch.randn(RANK, layer.in_features) / 2
                weights[f"transformer.{name}.{up}.weight"] = torch.randn(layer.out_features, RANK) / 2
    return weights


def write(folder: Path, name: str, weights: Weights, settings: dict[str, object] | None = None) -> Path:
    """`name` in the folder, put there by renaming, as an owner should do it."""
    header = {"lora_adapter_metadata": json.dumps(settings)} if settings is not None else {}
    save_file(weights, folder / "new", metadata=header)
    return (folder / "new").replace(folder / f"{name}.safetensors")


def paint_with(rack: LoraRack, pipeline: Any, *choices: tuple[str, float]) -> np.ndarray:
    with rack.applied(choices):
        return paint(pipeline, KLEIN)


def list_layers(pipeline: Any) -> dict[str, int]:
    return {name: id(layer) for name, layer in pipeline.transformer.named_modules()}


def list_loaded(pipeline: Any) -> list[str]:
    return list(getattr(pipeline.transformer, "peft_config", {}))


def test_a_job_without_loras_loads_nothing(rack: LoraRack, pipeline: Any, bare: np.ndarray) -> None:
    assert (paint_with(rack, pipeline) == bare).all()
    assert rack.kept_bytes == 0


def test_several_loras_add_up_and_each_has_its_strength(
    rack: LoraRack, pipeline: Any, folder: Path, bare: np.ndarray
) -> None:
    for seed, name in enumerate(("one", "two.v1-0")):
        write(folder, name, make_weights(pipeline.transformer, seed))
    one, two = (paint_with(rack, pipeline, (name, 1.0)) for name in ("one", "two.v1-0"))
    both = paint_with(rack, pipeline, ("one", 1.0), ("two.v1-0", 1.0))
    assert all(differ(a, b) for a, b in [(one, two), (both, one), (both, two), (one, bare)])
    assert (paint_with(rack, pipeline, ("one", 1.0), ("two.v1-0", 0.0)) == one).all()
    assert (paint_with(rack, pipeline, ("two.v1-0", 1.0)) == two).all()
    assert (paint(pipeline, KLEIN) == bare).all()


def test_an_error_in_the_middle_of_a_job_leaves_nothing_behind(
    rack: LoraRack, pipeline: Any, folder: Path, bare: np.ndarray
) -> None:
    write(folder, "one", make_weights(pipeline.transformer))
    styled = paint_with(rack, pipeline, ("one", 1.0))

    def stop(*_: Any) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError), rack.applied([("one", 1.0)]):
        paint(pipeline, KLEIN, callback_on_step_end=stop)
    assert (paint(pipeline, KLEIN) == bare).all()
    assert (paint_with(rack, pipeline, ("one", 1.0)) == styled).all()


def test_inference_mode_around_the_job_does_no_harm(
    rack: LoraRack, pipeline: Any, folder: Path, bare: np.ndarray
) -> None:
    for seed, name in enumerate(("one", "two")):
        write(folder, name, make_weights(pipeline.transformer, seed))
    with torch.inference_mode():
        styled = paint_with(rack, pipeline, ("one", 1.0))
    assert (paint_with(rack, pipeline, ("two", 0.0), ("one", 1.0)) == styled).all()
    with torch.inference_mode():
        assert (paint(pipeline, KLEIN) == bare).all()


def test_a_lora_is_loaded_once_and_again_when_the_owner_has_replaced_it(
    rack: LoraRack, pipeline: Any, folder: Path
) -> None:
    write(folder, "one", make_weights(pipeline.transformer, 0))
    first = paint_with(rack, pipeline, ("one", 1.0))
    loaded = list_loaded(pipeline)
    assert (paint_with(rack, pipeline, ("one", 1.0)) == first).all()
    assert list_loaded(pipeline) == loaded
    write(folder, "one", make_weights(pipeline.transformer, 1))
    assert differ(paint_with(rack, pipeline, ("one", 1.0)), first)
    write(folder, "one", make_weights(pipeline.transformer, 0))
    assert (paint_with(rack, pipeline, ("one", 1.0)) == first).all()


@pytest.mark.parametrize("limit", ["RACK_COUNT", "RACK_BYTES"])
def test_the_lora_used_least_recently_makes_room(
    rack: LoraRack, pipeline: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, limit: str, bare: np.ndarray
) -> None:
    for seed, name in enumerate(("a", "b", "c")):
        write(folder, name, make_weights(pipeline.transformer, seed))
    first = paint_with(rack, pipeline, ("a", 1.0))
    size_bytes = rack.kept_bytes
    monkeypatch.setattr(loras, limit, 2 if limit == "RACK_COUNT" else 2 * size_bytes)
    for name in ("b", "a", "c"):  # c takes the place of b
        paint_with(rack, pipeline, (name, 1.0))
    assert rack.kept_bytes == 2 * size_bytes
    loaded = list_loaded(pipeline)
    assert (paint_with(rack, pipeline, ("a", 1.0)) == first).all()
    assert list_loaded(pipeline) == loaded
    paint_with(rack, pipeline, ("b", 1.0))
    assert len(list_loaded(pipeline)) == 2
    assert list_loaded(pipeline) != loaded
    assert (paint(pipeline, KLEIN) == bare).all()


def test_loras_that_are_too_large_alone_or_together_are_refused(
    rack: LoraRack, pipeline: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, bare: np.ndarray
) -> None:
    for name in ("one", "two"):
        file = write(folder, name, make_weights(pipeline.transformer))
    monkeypatch.setattr(loras, "RACK_BYTES", file.stat().st_size)
    paint_with(rack, pipeline, ("one", 1.0))
    with pytest.raises(RunError, match="together"):
        paint_with(rack, pipeline, ("one", 1.0), ("two", 1.0))
    monkeypatch.setattr(loras, "RACK_BYTES", file.stat().st_size - 1)
    with pytest.raises(RunError, match="two cannot be used: its file is larger"):
        paint_with(rack, pipeline, ("two", 1.0))
    assert (paint(pipeline, KLEIN) == bare).all()


def spoil_weights(kind: str, weights: Weights) -> Weights:
    """A LoRA that is none, or none for this model."""
    spoilt: dict[str, Callable[[str, torch.Tensor], tuple[str, torch.Tensor] | None]] = {
        "of another architecture": lambda key, w: (key.replace("transformer_blocks", "joint_blocks"), w),
        "wider": lambda key, w: (key, torch.cat([w, w], dim=1 if "lora_A" in key else 0)),
        "narrower": lambda key, w: (key, w[:, ::2].contiguous() if "lora_A" in key else w[::2].contiguous()),
        "pairs that do not belong together": lambda key, w: (key, w[:1] if "lora_A" in key else w),
        "halves of pairs": lambda key, w: (key, w) if "lora_A" in key else None,
        "Kronecker factors": lambda key, w: (key.replace("lora_A", "lokr_w1").replace("lora_B", "lokr_w2"), w),
        "no lora": lambda key, w: (key.replace(".lora_A", "").replace(".lora_B", ""), w),
    }
    if kind in spoilt:
        return dict(pair for key, w in weights.items() if (pair := spoilt[kind](key, w)))
    if kind == "of a deeper model":
        return {
            key.replace("blocks.0", f"blocks.{depth}"): w.clone() for key, w in weights.items() for depth in range(4)
        }
    block = "transformer.transformer_blocks.0.attn"
    return weights | {"magnitudes": {f"{block}.to_q.dora_scale": torch.ones(32)},
                      "norms": {f"{block}.norm_q.weight": torch.ones(16)}}.get(kind, {})  # fmt: skip


def spoil_file(kind: str, file: Path) -> None:
    if kind == "a pickle":
        file.write_bytes(pickle.dumps({}))
    elif kind == "cut short":
        os.truncate(file, file.stat().st_size - 1)
    elif kind == "empty":
        file.write_bytes(b"")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("of another architecture", "another model"),
        ("of a deeper model", "another model"),
        ("wider", "another shape"),
        ("narrower", "another shape"),
        ("pairs that do not belong together", "another model"),
        ("halves of pairs", "another model"),
        ("Kronecker factors", "more than a LoRA"),
        ("magnitudes", "more than a LoRA"),
        ("norms", "more than a LoRA"),
        ("no lora", "holds no LoRA"),
        ("a pickle", "safetensors"),
        ("cut short", "safetensors"),
        ("empty", "safetensors"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_name_until_it_is_replaced(
    rack: LoraRack, pipeline: Any, folder: Path, bare: np.ndarray, kind: str, reason: str
) -> None:
    layers = list_layers(pipeline)
    write(folder, "good", make_weights(pipeline.transformer))
    styled = paint_with(rack, pipeline, ("good", 1.0))
    spoil_file(kind, write(folder, "bad", spoil_weights(kind, make_weights(pipeline.transformer))))
    for _ in range(2):
        with pytest.raises(RunError, match="The LoRA bad cannot be used") as refused:
            paint_with(rack, pipeline, ("good", 1.0), ("bad", 1.0))
        assert reason in refused.value.message
        assert (refused.value.error_code, refused.value.retryable) == ("model_error", False)
        assert list_layers(pipeline) == layers
        assert (paint(pipeline, KLEIN) == bare).all()
    assert (paint_with(rack, pipeline, ("good", 1.0)) == styled).all()
    write(folder, "bad", make_weights(pipeline.transformer))
    assert (paint_with(rack, pipeline, ("bad", 1.0)) == styled).all()


def test_what_was_half_loaded_is_taken_out_again(rack: LoraRack, pipeline: Any, folder: Path) -> None:
    layers, weights = list_layers(pipeline), make_weights(pipeline.transformer)
    write(folder, "bad", spoil_weights("pairs that do not belong together", weights))
    with pytest.raises(RunError):
        paint_with(rack, pipeline, ("bad", 1.0))
    assert list_layers(pipeline) == layers
    assert list_loaded(pipeline) == []


def test_a_file_that_is_gone_is_named(rack: LoraRack, pipeline: Any, folder: Path) -> None:
    with pytest.raises(RunError, match="The LoRA one cannot be used: its file is gone"):
        paint_with(rack, pipeline, ("one", 1.0))
    write(folder, "one", make_weights(pipeline.transformer))
    paint_with(rack, pipeline, ("one", 1.0))
    (folder / "one.safetensors").unlink()
    with pytest.raises(RunError, match="gone"):  # what the owner takes away is used no more
        paint_with(rack, pipeline, ("one", 1.0))


@pytest.mark.parametrize(
    ("settings", "strength"),
    [
        ({"transformer.lora_alpha": 2 * RANK, "transformer.r": RANK}, 2.0),
        ({"transformer.lora_alpha": RANK, "transformer.alpha_pattern": {}}, 1.0),
        ({"transformer.lora_alpha": 1, "transformer.alpha_pattern": {"attn.to_q": 1, "nowhere": 9}}, 0.5),
        ({"transformer.lora_alpha": RANK**0.5, "transformer.use_rslora": True}, 1.0),
        ({"transformer.megatron_config": {}, "transformer.megatron_core": "antigravity", "transformer.r": 9}, 1.0),
        ({"transformer.layer_replication": [[0, 1], [0, 1]], "transformer.modules_to_save": ["proj_out"]}, 1.0),
    ],
)
def test_of_the_header_the_alpha_counts_and_nothing_else(
    rack: LoraRack, pipeline: Any, folder: Path, settings: dict[str, object], strength: float
) -> None:
    weights = make_weights(pipeline.transformer)
    write(folder, "plain", weights)
    write(folder, "described", weights, settings)
    described = paint_with(rack, pipeline, ("described", 1.0))
    assert np.allclose(described, paint_with(rack, pipeline, ("plain", strength)), atol=1e-4)
    assert differ(described, paint_with(rack, pipeline, ("plain", strength / 3)))


def test_alphas_beside_the_matrices_count(rack: LoraRack, pipeline: Any, folder: Path) -> None:
    write(folder, "plain", make_weights(pipeline.transformer))
    kohya = {"transformer.transformer_blocks.0.attn.to_out.0": "lora_unet_double_blocks_0_img_attn_proj"}
    weights = {}
    for name, kohya_name in kohya.items():
        pair = make_weights(pipeline.transformer)
        weights[f"{kohya_name}.lora_down.weight"] = pair[f"{name}.lora_A.weight"]
        weights[f"{kohya_name}.lora_up.weight"] = pair[f"{name}.lora_B.weight"]
        weights[f"{kohya_name}.alpha"] = torch.tensor(RANK / 2)
        write(folder, "same", {key: w for key, w in pair.items() if key.startswith(name)})
    write(folder, "kohya", weights)
    assert np.allclose(paint_with(rack, pipeline, ("kohya", 1.0)), paint_with(rack, pipeline, ("same", 0.5)), atol=1e-5)


def test_weights_kept_in_eight_bits_take_loras_and_lose_them_again(
    make_rack: Callable[..., LoraRack], shelf: Shelf, folder: Path
) -> None:
    pipeline = shelf.load(KLEIN)
    pipeline.transformer.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    plain, rack = paint(pipeline, KLEIN), make_rack(pipeline, storage_dtype="float8_e4m3fn")
    write(folder, "one", make_weights(pipeline.transformer))
    styled = paint_with(rack, pipeline, ("one", 1.0))
    assert differ(styled, plain)
    assert (paint(pipeline, KLEIN) == plain).all()
    assert (paint_with(rack, pipeline, ("one", 1.0)) == styled).all()


def test_a_lora_of_another_type_is_brought_to_the_models(
    make_rack: Callable[..., LoraRack], shelf: Shelf, folder: Path
) -> None:
    pipeline = shelf.load(KLEIN).to(torch.bfloat16)
    plain, rack = paint(pipeline, KLEIN), make_rack(pipeline, dtype="bfloat16")
    weights = make_weights(pipeline.transformer)
    write(folder, "single", weights)
    write(folder, "half", {key: w.to(torch.bfloat16) for key, w in weights.items()})
    styled = paint_with(rack, pipeline, ("single", 1.0))
    assert rack.kept_bytes == sum(2 * w.numel() for w in weights.values())
    assert differ(styled, plain)
    assert (paint_with(rack, pipeline, ("half", 1.0)) == styled).all()


def test_a_compiled_model_is_not_compiled_again_for_loras_nor_after_them(
    make_rack: Callable[..., LoraRack], shelf: Shelf, folder: Path
) -> None:
    pipeline = shelf.load(KLEIN)
    graphs = 0

    def count(graph: torch.fx.GraphModule, _: Any) -> Any:
        nonlocal graphs
        graphs += 1
        return graph.forward

    torch._dynamo.reset()
    rack = make_rack(pipeline, compile="inductor")
    pipeline.transformer.compile_repeated_blocks(fullgraph=True, backend=count)
    plain = paint(pipeline, KLEIN)
    compiled = graphs
    assert compiled > 0
    for seed, name in enumerate(("one", "two")):
        write(folder, name, make_weights(pipeline.transformer, seed))
    for strength in (1.0, 0.9, 0.8):
        assert differ(paint_with(rack, pipeline, ("one", strength), ("two", strength)), plain)
        assert (paint(pipeline, KLEIN) == plain).all()
    assert graphs == compiled


def test_layers_that_are_skipped_stay_skipped(make_rack: Callable[..., LoraRack], shelf: Shelf, folder: Path) -> None:
    pipeline = shelf.load(KLEIN)
    skip_unused(pipeline, make_profile())
    rack, plain = make_rack(pipeline), paint(pipeline, KLEIN)
    write(folder, "one", make_weights(pipeline.transformer))
    assert differ(paint_with(rack, pipeline, ("one", 1.0)), plain)
    assert (paint(pipeline, KLEIN) == plain).all()


def test_the_painter_applies_the_loras_of_a_job_and_of_no_other(shelf: Shelf, folder: Path) -> None:
    lora_shelf = LoraShelf(str(folder.parent))
    profile = make_profile(path=str(shelf.folder(KLEIN)), device="cpu", cache_bytes=1 << 20)
    painter = load_painter("mine", profile, 1, lambda name: lora_shelf.find_file("mine", name))
    write(folder, "one", make_weights(shelf.pipeline(KLEIN).transformer))

    def paint_job(*chosen: tuple[str, float], on_step: Callable[[int], None] = lambda _: None) -> bytes:
        commission = Commission("a red cat", "", 64, 64, 2, 1, (), chosen)
        return painter.paint(commission, on_step).image.tobytes()

    def cancel(step: int) -> None:
        raise RunStopped(StopReason.CANCELLED)

    plain, styled = paint_job(), paint_job(("one", 1.0))
    assert styled != plain
    with pytest.raises(RunStopped):
        paint_job(("one", 1.0), on_step=cancel)
    assert paint_job() == plain
    with pytest.raises(RunError, match="The LoRA other"):
        paint_job(("other", 1.0))
    assert painter.paint(Commission("a red cat", "", 64, 64, 2, 1, ()), lambda _: None, lean=True).image
    assert (paint_job(("one", 1.0)), paint_job()) == (styled, plain)


def test_a_lora_that_fits_in_part_is_applied_and_logged(
    rack: LoraRack, pipeline: Any, folder: Path, bare: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = make_weights(pipeline.transformer)
    write(folder, "one", {**weights, "text_encoder.layers.0.lora_A.weight": torch.zeros(2, 2)})
    assert differ(paint_with(rack, pipeline, ("one", 1.0)), bare)
    assert "lora_fits_in_part" in capsys.readouterr().out


def test_a_pipeline_that_takes_no_loras_is_refused_at_start() -> None:
    with pytest.raises(ConfigError, match="loras: must be 0"):
        LoraRack(object(), lambda _: None, make_profile())
