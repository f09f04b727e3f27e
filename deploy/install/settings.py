"""/etc/umrgen/config.toml: made once from the shipped one, afterwards only compared with it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass

from deploy.install.places import InstallFailed, Places


@dataclass(frozen=True, slots=True)
class Differences:
    """What the shipped settings and those of the box do not have in common."""

    new: tuple[str, ...]
    """Lines of the shipped file, below a line with their section: settings that the box's file does not name."""
    unknown: tuple[str, ...]
    """`[section] key` of the box's file that this version does not know."""


def make_config(shipped: str, places: Places) -> str:
    """The shipped config.toml for a box of its own: no key that stands in the documentation, no log files."""
    changes = {
        ("auth", "development_key"): '""',
        ("auth", "secret_file"): f'"{places.secret}"',
        ("storage", "data_dir"): f'"{places.data}"',
        ("log", "file_bytes"): "0",  # the journal keeps and rotates what the services print
    }
    for (section, key), value in changes.items():
        shipped = _replace(shipped, section, key, value)
    return shipped


def _replace(text: str, section: str, key: str, value: str) -> str:
    pattern = rf'(^\[{section}\][^\[]*?^{key} = )(?:"[^"]*"|[^\s#]+)'
    replaced, count = re.subn(pattern, lambda match: match[1] + value, text, count=1, flags=re.MULTILINE)
    if not count:
        raise InstallFailed(f"the shipped config.toml has no [{section}] {key}")
    return replaced


def compare(shipped: str, installed: str) -> Differences:
    """What is new in `shipped` and unknown to it in `installed`. Models are the owner's own affair."""
    ours, theirs = set(_list_keys(shipped)), set(_list_keys(installed))
    unknown = tuple(f"[{section}] {key}" for section, key in sorted(theirs - ours))
    return Differences(tuple(_list_lines(shipped, ours - theirs)), unknown)


def _list_keys(text: str) -> Iterator[tuple[str, str]]:
    for section, values in tomllib.loads(text).items():
        if section != "models" and isinstance(values, dict):
            yield from ((section, key) for key in values)


def _list_lines(shipped: str, wanted: set[tuple[str, str]]) -> Iterator[str]:
    section, told = "", ""
    for line in shipped.splitlines():
        if heading := re.match(r"\[([a-z_]+)\]", line):
            section = heading[1]
        key = re.match(r"([a-z_]+) = ", line)
        if key and (section, key[1]) in wanted:
            if told != section:
                yield f"[{section}]"
            told = section
            yield line
