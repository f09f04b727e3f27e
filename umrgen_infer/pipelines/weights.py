"""Where a profile's weights lie: a folder, a package, or the cache of the hub. Nothing is downloaded here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from huggingface_hub import try_to_load_from_cache

from umrgen_core.errors import ConfigError
from umrgen_core.profiles import HUB_PREFIX, PACKAGE_PREFIX, ModelProfile

INDEX = "model_index.json"
SUFFIX = ".safetensors"
IMAGE_ENCODER = "image_encoder"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_HUB = re.compile(rf"{HUB_PREFIX}(?P<repo>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>[\w.-]+))?(/(?P<inside>[\w./-]+))?")


@dataclass(frozen=True, slots=True)
class HubPlace:
    """A place in a repository of the hub: all of it, or one file. `revision` is a commit, or "main"."""

    repo: str
    revision: str
    inside: str = ""


def find_folder(name: str, profile: ModelProfile) -> Path:
    """The folder that a profile's path means. Raises ConfigError that says how to get what is missing."""
    place = parse_hub(name, "path", profile)
    if place is not None:
        return _find_cached(name, "path", place, INDEX).parent
    if profile.path.startswith(PACKAGE_PREFIX):
        package, _, inside = profile.path.removeprefix(PACKAGE_PREFIX).partition("/")
        try:
            folder = Path(str(resources.files(package))) / inside
        except ModuleNotFoundError:
            raise ConfigError(f"[models.{name}] path: no package {package} is installed") from None
    else:
        folder = Path(profile.path)
    if not (folder / INDEX).is_file():
        raise ConfigError(f"[models.{name}] path: {folder} holds no pipeline (no {INDEX})")
    return folder


def find_file(name: str, key: str, profile: ModelProfile) -> Path:
    """The file that `ip_adapter` or `fused_lora` means. Raises ConfigError unless it is there and safe to open."""
    text = str(getattr(profile, key))
    if not text.endswith(SUFFIX):
        raise ConfigError(f"[models.{name}] {key}: {text} is not a {SUFFIX} file; no other is ever opened")
    place = parse_hub(name, key, profile)
    if place is not None:
        return _find_cached(name, key, place, place.inside)
    if not Path(text).is_file():
        raise ConfigError(f"[models.{name}] {key}: there is no file {text}")
    return Path(text)


def parse_hub(name: str, key: str, profile: ModelProfile) -> HubPlace | None:
    """What `path`, `ip_adapter` or `fused_lora` names on the hub; None for a place of this machine."""
    text = str(getattr(profile, key))
    if not text.startswith(HUB_PREFIX):
        return None
    found = _HUB.fullmatch(text)
    whole = key == "path"
    if found is None or ".." in text or bool(found["inside"]) == whole or (whole and found["revision"]):
        form = "hub:OWNER/NAME" if whole else f"hub:OWNER/NAME/FILE{SUFFIX} or hub:OWNER/NAME@COMMIT/FILE{SUFFIX}"
        raise ConfigError(f"[models.{name}] {key}: {text} does not have the form {form}")
    # Weights are named by their commit, or else a PNG would not say what painted it.
    revision = profile.revision if whole else found["revision"] or "main"
    if not _COMMIT.fullmatch(revision) and (whole or revision != "main"):
        named = "revision" if whole else key
        raise ConfigError(
            f"[models.{name}] {named}: {revision!r} is no commit of {found['repo']}; a commit has 40 hexadecimal digits"
        )
    return HubPlace(found["repo"], revision, found["inside"] or "")


def how_to_fetch(name: str) -> str:
    """The command that downloads all of a profile."""
    return f"umrgen-infer fetch --profile {name}"


def _find_cached(name: str, key: str, place: HubPlace, file: str) -> Path:
    found = try_to_load_from_cache(place.repo, file, revision=place.revision)
    if not isinstance(found, str):
        where = f"{place.repo} at {place.revision}"
        raise ConfigError(f"[models.{name}] {key}: {where} is not on this machine yet; run: {how_to_fetch(name)}")
    return Path(found)
