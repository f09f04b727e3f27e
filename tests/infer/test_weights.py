"""Weights come from a folder, a package or the hub, whole and in a format that runs nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from tests.conftest import ROOT
from tests.infer.families.flux2_klein import build_klein
from tests.infer.families.sdxl import build_sdxl
from tests.infer.hub import COMMIT, Hub, open_hub
from tests.infer.shipped import build_adapter, shipped_profiles, shrink
from umrgen_core.errors import CANNOT_START, ConfigError
from umrgen_core.profiles import ModelProfile
from umrgen_infer.pipelines.fetch import choose_files
from umrgen_infer.pipelines.load import load_painter
from umrgen_infer.pipelines.trust import require_trusted
from umrgen_infer.pipelines.weights import find_file, find_folder

REPO = "someone/tiny-klein"
WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"
WRITTEN_BYTES = constants.DOWNLOAD_CHUNK_SIZE
"""How much of a download is written at once; what breaks off before is lost."""
UNREAD = {
    "README.md": b"# A model",
    "klein.safetensors": b"all of it once more",
    "pipeline.py": b"raise SystemExit",
    "text_encoder/pytorch_model.bin": b"a pickle",
    "transformer/diffusion_pytorch_model.fp16.safetensors": b"a variant",
    "transformer/model.onnx": b"another format",
}
PROFILE = f"""
[models.mine]
pipeline = "Flux2KleinPipeline"
path = "hub:{REPO}"
revision = "{COMMIT}"
device = "cpu"
dtype = "float32"
guidance_argument = "guidance_scale"
guidance = 1.0
references_as = "list"
references = 2
"""


@pytest.fixture(scope="module")
def klein(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("klein") / "weights"
    build_klein(folder)
    return folder


def read_files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def hub(klein: Path) -> Iterator[Hub]:
    with open_hub({REPO: {**read_files(klein), **UNREAD}}) as opened:
        yield opened


class Machine:
    """A config file and a cache of the hub of one's own."""

    def __init__(self, folder: Path, hub: Hub) -> None:
        self.config = folder / "config.toml"
        self.write(PROFILE)
        self.environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf")}
        self.cache = folder / "hf" / "hub"

    def write(self, profile: str) -> None:
        self.config.write_text((ROOT / "config.toml").read_text() + profile)

    def start_fetch(self, name: str = "mine") -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "umrgen_infer", "--config", self.config, "fetch", "--profile", name],
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def fetch(self, name: str = "mine") -> tuple[int, str, str]:
        with self.start_fetch(name) as process:
            try:
                out, errors = process.communicate(timeout=60)
            finally:
                process.kill()
        return process.returncode, out, errors


@pytest.fixture
def machine(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path, hub)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(made.cache))
    return made


def hub_profile(**changes: Any) -> ModelProfile:
    values = {"pipeline": "Flux2KleinPipeline", "path": f"hub:{REPO}", "revision": COMMIT, "dtype": "float32"}
    values |= {"device": "cpu", "guidance_argument": "guidance_scale", "guidance": 1.0}
    return ModelProfile.model_validate(values | changes)


def test_a_profile_of_the_hub_is_fetched_whole_and_nothing_else_then_loads_offline(hub: Hub, machine: Machine) -> None:
    with pytest.raises(ConfigError, match="umrgen-infer fetch --profile mine"):
        find_folder("mine", hub_profile())
    long = "transformer/long.txt"
    hub.repos[REPO][long] = bytes(3 * WRITTEN_BYTES)
    hub.broken.add(long)
    status, out, errors = machine.fetch()
    assert status == 0, errors
    assert "GB to download" in out
    fetched = {path for path, _ in hub.gets}
    assert not fetched & UNREAD.keys()
    assert {"model_index.json", WEIGHTS, "text_encoder/model.safetensors", "tokenizer/tokenizer.json"} <= fetched
    folder = find_folder("mine", hub_profile())
    assert f"path: {folder}" in out
    # The download that broke off went on where it was.
    assert [asked for path, asked in hub.gets if path == long] == ["", f"bytes={WRITTEN_BYTES}-"]
    assert {path: (folder / path).read_bytes() for path in fetched} == {path: hub.repos[REPO][path] for path in fetched}
    hub.gets.clear()
    painter = load_painter("mine", hub_profile())
    painter.close()
    assert machine.fetch()[0] == 0
    assert hub.gets == []


def test_a_fetch_that_was_killed_goes_on_with_the_files_that_are_not_whole(hub: Hub, machine: Machine) -> None:
    hub.stuck.add(WEIGHTS)
    with machine.start_fetch() as process:
        assert hub.waiting.wait(60)
        process.send_signal(signal.SIGKILL)
    with pytest.raises(ConfigError, match="umrgen-infer fetch --profile mine"):
        require_trusted("mine", hub_profile(), find_folder("mine", hub_profile()))
    before = {path for path in machine.cache.rglob("*/snapshots/*/*/*") if path.is_file()}
    hub.stuck.clear()
    hub.gets.clear()
    assert machine.fetch()[0] == 0
    again = {path for path, _ in hub.gets}
    assert WEIGHTS in again
    assert not {str(Path(path.parent.name) / path.name) for path in before} & again


def test_a_fetch_that_does_not_fit_on_the_disk_says_so_before_it_begins(hub: Hub, machine: Machine) -> None:
    hub.listed_bytes[WEIGHTS] = 1 << 55
    status, _, errors = machine.fetch()
    assert status == CANNOT_START
    assert "do not fit on the disk" in errors
    assert {path for path, _ in hub.gets} == {"model_index.json"}


def test_a_fetch_of_what_the_hub_keeps_to_those_who_agreed_says_what_to_do(hub: Hub, machine: Machine) -> None:
    hub.gated.add(REPO)
    status, _, errors = machine.fetch()
    assert status == CANNOT_START
    assert REPO in errors
    assert "HF_TOKEN" in errors
    status, _, errors = machine.fetch("nobodys")
    assert status == CANNOT_START
    assert "models.nobodys" in errors


def test_an_adapter_and_a_fused_lora_are_fetched_as_well(
    hub: Hub, machine: Machine, klein: Path, tmp_path: Path
) -> None:
    weights = tmp_path / "sdxl"
    build_sdxl(weights)
    adapter = build_adapter(tmp_path / "adapter", weights)
    others = {"models/ip-adapter_sd15.safetensors": b"", "sdxl_models/image_encoder/pytorch_model.bin": b""}
    hub.repos["someone/adapter"] = {**read_files(adapter.parents[1]), **others}
    hub.repos["someone/sdxl"] = read_files(weights)
    hub.repos["someone/lora"] = {"lora.safetensors": b"matrices", "other.safetensors": b"more"}
    machine.write(f"""
[models.mine]
pipeline = "StableDiffusionXLPipeline"
path = "hub:someone/sdxl"
revision = "{COMMIT}"
references_as = "ip_adapter"
references = 1
ip_adapter = "hub:someone/adapter/sdxl_models/{adapter.name}"
fused_lora = "hub:someone/lora@{COMMIT}/lora.safetensors"
""")
    status, out, errors = machine.fetch()
    assert status == 0, errors
    fetched = {path for path, _ in hub.gets}
    assert {f"sdxl_models/{adapter.name}", "sdxl_models/image_encoder/model.safetensors", "lora.safetensors"} <= fetched
    assert not {*others, "other.safetensors"} & fetched
    profile = hub_profile(
        references_as="ip_adapter",
        references=1,
        ip_adapter=f"hub:someone/adapter/sdxl_models/{adapter.name}",
        fused_lora=f"hub:someone/lora@{COMMIT}/lora.safetensors",
    )
    for key in ("ip_adapter", "fused_lora"):
        assert f"{key}: {find_file('mine', key, profile)}" in out


def test_of_a_repository_only_what_diffusers_reads_is_chosen() -> None:
    shards = [f"transformer/diffusion_pytorch_model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    index = "transformer/diffusion_pytorch_model.safetensors.index.json"
    others = ["transformer/deeper/model.safetensors", "other/model.safetensors", "model.safetensors", *UNREAD]
    others += ["transformer/consolidated.safetensors", "transformer/diffusion_pytorch_model.fp16.safetensors"]
    chosen = choose_files(["transformer", "tokenizer"], [*shards, index, "tokenizer/merges.txt", *others])
    assert chosen == [*shards, index, "tokenizer/merges.txt"]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"path": "hub:nobody"}, "hub:OWNER/NAME"),
        ({"path": "hub:../.."}, "hub:OWNER/NAME"),
        ({"revision": "main"}, "40 hexadecimal digits"),
        ({"revision": ""}, "40 hexadecimal digits"),
        ({"path": "package:no_such_package/x"}, "no_such_package"),
        ({"path": "/nowhere"}, "model_index.json"),
    ],
)
def test_a_path_that_leads_nowhere_is_refused_by_name(machine: Machine, changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=r"models\.mine") as refused:
        find_folder("mine", hub_profile(**changes))
    assert named in refused.value.message


@pytest.mark.parametrize(
    ("file", "named"),
    [
        ("/somewhere/lora.bin", ".safetensors"),
        ("/nowhere/lora.safetensors", "there is no file"),
        ("hub:someone/lora/x.safetensors", "umrgen-infer fetch --profile mine"),
        ("hub:someone/lora@v1/x.safetensors", "40 hexadecimal digits"),
        ("hub:someone", "hub:OWNER/NAME"),
    ],
)
def test_a_lora_that_is_not_there_or_not_safe_is_refused_by_name(machine: Machine, file: str, named: str) -> None:
    with pytest.raises(ConfigError, match=r"models\.mine\] fused_lora") as refused:
        find_file("mine", "fused_lora", hub_profile(fused_lora=file + "" if "." in file else f"{file}.safetensors"))
    assert named in refused.value.message


@pytest.fixture
def copy(klein: Path, tmp_path: Path) -> Path:
    """A copy of the tiny weights that a test may spoil."""
    folder = tmp_path / "copy"
    for path, content in read_files(klein).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


def change_index(folder: Path, **changes: Any) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | changes))


def refuse(folder: Path, **changes: Any) -> str:
    with pytest.raises(ConfigError, match=r"models\.mine") as refused:
        load_painter("mine", hub_profile(path=str(folder), **changes))
    return refused.value.message


def test_weights_of_another_pipeline_are_refused_though_they_would_load(copy: Path) -> None:
    change_index(copy, _class_name="Flux2KleinKVPipeline")
    assert "Flux2KleinKVPipeline" in refuse(copy)


@pytest.mark.parametrize("library", ["os", "umrgen_infer.pipelines.load", "pipeline"])
def test_an_index_that_names_code_of_its_own_is_refused_before_anything_is_imported(copy: Path, library: str) -> None:
    change_index(copy, transformer=[library, "Anything"])
    assert f"of {library}" in refuse(copy)


def test_weights_that_are_pickles_are_never_opened(copy: Path) -> None:
    (copy / WEIGHTS).rename((copy / WEIGHTS).with_suffix(".bin"))
    assert "pickles" in refuse(copy)


@pytest.mark.parametrize("index", ["not json", "[]", "{}"])
def test_an_index_that_is_none_is_refused(copy: Path, index: str) -> None:
    (copy / "model_index.json").write_text(index)
    assert refuse(copy)


def test_a_missing_part_a_missing_shard_and_a_torn_file_are_refused_with_what_to_do(copy: Path) -> None:
    whole = (copy / WEIGHTS).read_bytes()
    (copy / WEIGHTS).write_bytes(whole[: len(whole) // 2])
    assert "umrgen-infer fetch --profile mine" in refuse(copy)
    shards = {"weight_map": {"a": "diffusion_pytorch_model-00001-of-00002.safetensors"}}
    (copy / f"{WEIGHTS}.index.json").write_text(json.dumps(shards))
    assert "lacks diffusion_pytorch_model-00001-of-00002.safetensors" in refuse(copy)
    for file in (copy / "transformer").iterdir():
        file.unlink()
    assert "empty or missing" in refuse(copy)


def test_an_adapter_whose_encoder_is_a_pickle_is_never_opened(tmp_path: Path) -> None:
    profile = shrink("sdxl-turbo", tmp_path)
    encoder = Path(profile.ip_adapter).parent / "image_encoder"
    (encoder / "model.safetensors").rename(encoder / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="pickles"):
        load_painter("mine", profile)


@pytest.mark.parametrize("spoil", ["foreign", "torn", "half", "empty"])
def test_a_fused_lora_that_does_not_fit_is_refused(tmp_path: Path, spoil: str) -> None:
    from safetensors.torch import load_file, save_file

    profile = shrink("qwen-image-edit-2511", tmp_path)
    file = Path(profile.fused_lora)
    tensors = load_file(file)
    if spoil == "torn":
        file.write_bytes(file.read_bytes()[:-20])
    elif spoil == "empty":
        save_file({}, file)
    elif spoil == "foreign":
        save_file({key.replace("transformer_blocks", "other_blocks"): tensors[key] for key in tensors}, file)
    else:
        save_file({key: tensor[:1] if "up" in key else tensor for key, tensor in tensors.items()}, file)
    with pytest.raises(ConfigError, match=r"models\.mine\] fused_lora"):
        load_painter("mine", profile)


def test_the_shipped_profiles_name_places_of_the_hub_that_can_be_read(machine: Machine) -> None:
    for name, profile in shipped_profiles().items():
        if profile.path.startswith("hub:"):
            with pytest.raises(ConfigError, match=f"umrgen-infer fetch --profile {name}"):
                find_folder(name, profile)
        for key in ("ip_adapter", "fused_lora"):
            if getattr(profile, key):
                with pytest.raises(ConfigError, match=f"umrgen-infer fetch --profile {name}"):
                    find_file(name, key, profile)
