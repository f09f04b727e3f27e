"""`umrgen-infer fetch --profile NAME`: what a profile needs of the hub is brought into the hub's cache, pinned.

Only what diffusers reads: the index, the folders that it names, weights as safetensors and in one copy.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import httpx2
from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError
from huggingface_hub.hf_api import RepoFile

from umrgen_core.config import load_settings
from umrgen_core.errors import CANNOT_START, ConfigError, UmrgenError
from umrgen_core.profiles import ModelProfile
from umrgen_infer.pipelines.trust import LIBRARIES, list_parts
from umrgen_infer.pipelines.weights import IMAGE_ENCODER, INDEX, HubPlace, find_file, find_folder, parse_hub

KEYS = ("path", "ip_adapter", "fused_lora")
WEIGHTS = re.compile(r"(model|diffusion_pytorch_model)(-\d{5}-of-\d{5})?\.safetensors")
"""Names under which diffusers and transformers look for weights; others are variants and copies."""
DATA = frozenset({".json", ".txt", ".model", ".jinja", ".tiktoken"})
"""Configurations and tokenizers."""
FILES_AT_ONCE = 4
SPARE_BYTES = 1 << 30
"""Left free beside what is downloaded."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """Files of one repository at one commit, and the bytes of those that are not here yet."""

    place: HubPlace
    files: tuple[str, ...]
    missing_bytes: int


def fetch(name: str, profile: ModelProfile) -> None:
    """Download what the profile names and print where it lies. Raises ConfigError with what to do."""
    places = {key: parse_hub(name, key, profile) for key in KEYS if getattr(profile, key)}
    try:
        parcels = [_pack(name, key, place) for key, place in places.items() if place is not None]
        _require_disk(name, parcels)
        for parcel in parcels:
            snapshot_download(
                parcel.place.repo,
                revision=parcel.place.revision,
                allow_patterns=list(parcel.files),
                max_workers=FILES_AT_ONCE,
            )
    except (GatedRepoError, RepositoryNotFoundError) as error:
        raise ConfigError(
            f"[models.{name}]: the hub does not show {_name_repo(error, places)} to everybody. Accept its licence on "
            f"its page, make a token there, and run the command again with HF_TOKEN set.\n{error}"
        ) from error
    except (HfHubHTTPError, LocalEntryNotFoundError, httpx2.HTTPError, OSError, ValueError) as error:
        raise ConfigError(
            f"[models.{name}]: the download broke off: {error}\nRun the command again: files that are whole are kept."
        ) from error
    _print_places(name, profile)


def _pack(name: str, key: str, place: HubPlace) -> Parcel:
    listed = HfApi().list_repo_tree(place.repo, recursive=True, revision=place.revision)
    sizes = {entry.path: entry.size for entry in listed if isinstance(entry, RepoFile)}
    files = tuple(sorted(_choose(key, place, sizes)))
    if not files:
        raise ConfigError(f"[models.{name}] {key}: {place.repo} at {place.revision} has nothing that could be used")
    missing = [file for file in files if not _is_here(place, file)]
    return Parcel(place, files, sum(sizes[file] for file in missing))


def _choose(key: str, place: HubPlace, listed: Iterable[str]) -> list[str]:
    if key == "fused_lora":
        return [file for file in listed if file == place.inside]
    if key == "ip_adapter":
        encoder = str(PurePosixPath(place.inside).parent / IMAGE_ENCODER)
        return choose_files([encoder], listed) + [file for file in listed if file == place.inside]
    index = json.loads(Path(hf_hub_download(place.repo, INDEX, revision=place.revision)).read_text(encoding="utf-8"))
    parts = [part for part, (library, _) in list_parts(index).items() if library in LIBRARIES]
    return [INDEX, *choose_files(parts, listed)]


def choose_files(folders: Iterable[str], listed: Iterable[str]) -> list[str]:
    """Of the files of a repository those that are read from `folders`."""
    wanted = {PurePosixPath(folder) for folder in folders}
    inside = [path for path in map(PurePosixPath, listed) if path.parent in wanted]
    return [str(path) for path in inside if path.suffix in DATA or WEIGHTS.fullmatch(path.name)]


def _is_here(place: HubPlace, file: str) -> bool:
    return isinstance(try_to_load_from_cache(place.repo, file, revision=place.revision), str)


def _require_disk(name: str, parcels: list[Parcel]) -> None:
    """Said before the first byte, not after hours."""
    needed_bytes = sum(parcel.missing_bytes for parcel in parcels)
    cache = Path(constants.HF_HUB_CACHE)
    standing = next(folder for folder in (cache, *cache.parents) if folder.exists())
    free_bytes = shutil.disk_usage(standing).free
    _say(f"{name}: {needed_bytes / 1e9:.2f} GB to download to {cache}, {free_bytes / 1e9:.2f} GB free there")
    if needed_bytes and needed_bytes + SPARE_BYTES > free_bytes:
        raise ConfigError(
            f"[models.{name}]: {needed_bytes / 1e9:.2f} GB and {SPARE_BYTES / 1e9:.2f} GB to spare do not fit on the "
            f"disk of {cache}, where {free_bytes / 1e9:.2f} GB are free; make room, or set HF_HUB_CACHE to another disk"
        )


def _name_repo(error: Exception, places: dict[str, HubPlace | None]) -> str:
    repos = [place.repo for place in places.values() if place is not None]
    return next((repo for repo in repos if repo in str(error)), " or ".join(repos))


def _print_places(name: str, profile: ModelProfile) -> None:
    _say(f"path: {find_folder(name, profile)}")
    for key in KEYS[1:]:
        if getattr(profile, key):
            _say(f"{key}: {find_file(name, key, profile)}")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> int:
    """Entry of the process that `umrgen-infer fetch` becomes."""
    parser = argparse.ArgumentParser(prog="umrgen-infer fetch")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--profile", required=True)
    options = parser.parse_args()
    try:
        models = load_settings(options.config).models
        if options.profile not in models:
            raise ConfigError(f"--profile: no [models.{options.profile}] is described; there are {', '.join(models)}")
        fetch(options.profile, models[options.profile])
    except (UmrgenError, OSError) as error:
        sys.stderr.write(f"umrgen-infer: {error}\n")
        return CANNOT_START
    except KeyboardInterrupt:
        sys.stderr.write("umrgen-infer: stopped; run the command again to go on\n")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
