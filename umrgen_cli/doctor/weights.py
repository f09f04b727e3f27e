"""The files of the models that are served: there and complete, as far as can be told without loading them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

from umrgen_cli.doctor.findings import Finding, Patient, good, problem
from umrgen_cli.figures import show_bytes
from umrgen_core.footprint import list_processes
from umrgen_core.profiles import HUB_PREFIX, PACKAGE_PREFIX, ModelProfile

INDEX = "model_index.json"
SHARDS = "*.safetensors.index.json"
FETCH = "umrgen-infer fetch --profile {name}"
FILES = ("ip_adapter", "fused_lora")


class Missing(Exception):
    """What a model lacks, and what to do about it."""

    def __init__(self, seen: str, advice: str) -> None:
        super().__init__(seen)
        self.seen, self.advice = seen, advice


def check_models(patient: Patient) -> Iterator[Finding]:
    """Each of [infer] models."""
    cache = find_cache(_read_environment(patient))
    for name in patient.settings.infer.models:
        profile = patient.settings.models.get(name)
        if profile is None:
            yield problem(name, "no such model is described", f"describe it in [models.{name}], or do not serve it")
            continue
        try:
            folder = find_folder(name, profile, cache)
            size = measure(name, folder)
            for key in FILES:
                _require_file(name, key, str(getattr(profile, key)), cache)
        except Missing as missing:
            yield problem(name, missing.seen, missing.advice)
        else:
            yield good(name, f"{show_bytes(size)} in {folder}")


def _read_environment(patient: Patient) -> Mapping[str, str]:
    """The daemon's where it runs and may be looked at: it decides where the weights are. Else our own."""
    for process in list_processes(patient.settings.storage.data_dir):
        if process.kind == "infer":
            try:
                written = Path(f"/proc/{process.pid}/environ").read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue
            return dict(line.partition("=")[::2] for line in written.split("\0") if line)
    return os.environ


def find_cache(environment: Mapping[str, str]) -> Path:
    """Where the hub's client keeps what it has fetched."""
    if given := environment.get("HF_HUB_CACHE"):
        return Path(given)
    home = environment.get("XDG_CACHE_HOME") or f"{environment.get('HOME', '~')}/.cache"
    return Path(environment.get("HF_HOME") or f"{home}/huggingface").expanduser() / "hub"


def find_folder(name: str, profile: ModelProfile, cache: Path) -> Path:
    """The folder of a model's pipeline. Raises Missing."""
    fetch = f"run: {FETCH.format(name=name)}"
    if profile.path.startswith(HUB_PREFIX):
        repository = profile.path.removeprefix(HUB_PREFIX)
        folder = _snapshot(cache, repository, profile.revision)
        seen, advice = f"{repository} at {profile.revision[:12]} is not in {cache}", fetch
    elif profile.path.startswith(PACKAGE_PREFIX):
        package, _, inside = profile.path.removeprefix(PACKAGE_PREFIX).partition("/")
        spec = find_spec(package) if package.isidentifier() else None
        if spec is None or not spec.submodule_search_locations:
            raise Missing(f"there is no package {package}", f"install it, or correct [models.{name}] path")
        folder = Path(spec.submodule_search_locations[0]) / inside
        seen, advice = f"{folder} holds no pipeline (no {INDEX})", "run 'make setup', or install this version again"
    else:
        folder = Path(profile.path)
        seen, advice = f"{folder} holds no pipeline (no {INDEX})", f"correct [models.{name}] path, or put it there"
    if not (folder / INDEX).is_file():
        raise Missing(seen, advice)
    return folder


def _snapshot(cache: Path, repository: str, revision: str) -> Path:
    """Where the hub's client lays a repository out; a branch is a file that names a commit."""
    home = cache / f"models--{repository.replace('/', '--')}"
    branch = home / "refs" / revision
    commit = branch.read_text(encoding="ascii").strip() if branch.is_file() else revision
    return home / "snapshots" / commit


def measure(name: str, folder: Path) -> int:
    """Bytes of the files of every part that the pipeline names. Raises Missing when some of them are not there."""
    fetch = f"where it comes from the hub, run: {FETCH.format(name=name)}; else copy it again"
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        parts = [part for part, value in index.items() if isinstance(value, list) and value and value[0] is not None]
    except (OSError, ValueError, AttributeError) as error:
        raise Missing(f"{folder / INDEX} cannot be read: {error}", fetch) from None
    total = 0
    for part in parts:
        # Lists in the index that name no part are options of the pipeline: those have no folder and two numbers.
        if part.startswith("_") or not isinstance(index[part][0], str):
            continue
        files = {file.name: file for file in (folder / part).glob("*") if file.is_file()}
        lacking = sorted(_list_shards(folder / part) - files.keys())
        if not files or lacking:
            what = f"{folder / part} lacks {lacking[0]}" if files else f"{folder / part} is empty or missing"
            raise Missing(what, fetch)
        total += sum(file.stat().st_size for file in files.values())
    return total


def _list_shards(part: Path) -> set[str]:
    needed: set[str] = set()
    for index in part.glob(SHARDS):
        try:
            needed |= set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError, AttributeError):
            needed.add(index.name)  # a broken link that an interrupted download left
    return needed


def _require_file(name: str, key: str, text: str, cache: Path) -> None:
    """The adapter or the LoRA that belongs to the model. Raises Missing."""
    if not text:
        return
    path = Path(text)
    if text.startswith(HUB_PREFIX):
        owner, repository, *inside = text.removeprefix(HUB_PREFIX).split("/")
        repository, _, revision = repository.partition("@")
        path = _snapshot(cache, f"{owner}/{repository}", revision or "main").joinpath(*inside)
    if not path.is_file():
        raise Missing(f"{key}: there is no {path}", f"run: {FETCH.format(name=name)}, or correct [models.{name}] {key}")
