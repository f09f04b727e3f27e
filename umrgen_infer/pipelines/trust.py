"""What a folder must be before anything in it is loaded: whole, of the profile's class, and nothing but data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from umrgen_core.errors import ConfigError
from umrgen_core.profiles import ModelProfile
from umrgen_infer.pipelines.weights import INDEX, how_to_fetch

LIBRARIES = frozenset({"diffusers", "transformers"})
"""diffusers imports whatever module an index names; from these two it gets classes that are known."""
PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl"})
"""Files that run what is in them when they are opened."""
PART_LENGTH = 2
"""A part of the index: library and class."""


def require_trusted(name: str, profile: ModelProfile, folder: Path) -> None:
    """Raise ConfigError, with what to do, unless `folder` is a pipeline of the profile's class."""
    index = _read_index(name, folder)
    if index.get("_class_name") != profile.pipeline:
        # The same weights load into another class without a word, and paint something else.
        raise ConfigError(
            f"[models.{name}] pipeline: the weights in {folder} are those of {index.get('_class_name')}, "
            f"not of {profile.pipeline}"
        )
    for part, (library, class_name) in list_parts(index).items():
        if library not in LIBRARIES:
            raise ConfigError(
                f"[models.{name}] path: {part} in {folder}/{INDEX} is {class_name} of {library}; only classes of "
                f"{' and '.join(sorted(LIBRARIES))} are loaded"
            )
        require_whole(name, folder / part)


def list_parts(index: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Library and class of each part that the pipeline has, by name."""
    parts = {
        part: value
        for part, value in index.items()
        if not part.startswith("_") and isinstance(value, list) and len(value) == PART_LENGTH
    }
    return {part: (str(library), str(of)) for part, (library, of) in parts.items() if library is not None}


def _read_index(name: str, folder: Path) -> dict[str, Any]:
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"[models.{name}] path: {folder}/{INDEX} cannot be read: {error}") from None
    if not isinstance(index, dict):
        raise ConfigError(f"[models.{name}] path: {folder}/{INDEX} is not the index of a pipeline")
    return index


def require_whole(name: str, part: Path) -> None:
    """Raise ConfigError when a part's folder has pickles alone, or lacks files that it lists."""
    files = [file for file in part.glob("*") if file.is_file()] if part.is_dir() else []
    suffixes = {file.suffix for file in files}
    if suffixes & PICKLES and ".safetensors" not in suffixes:
        raise ConfigError(
            f"[models.{name}] path: {part} has its weights as pickles only, which can run code and are never opened; "
            "use a revision with .safetensors files"
        )
    present = {file.name for file in files}
    needed = {shard for index in part.glob("*.safetensors.index.json") for shard in _list_shards(index)}
    missing = sorted(needed - present)
    if not files or missing:
        what = f"{part} lacks {missing[0]}" if files else f"{part} is empty or missing"
        raise ConfigError(f"[models.{name}] path: {what}; where it comes from the hub, run: {how_to_fetch(name)}")


def _list_shards(index: Path) -> set[str]:
    try:
        return set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError):
        return {index.name}  # a broken link of an interrupted download
