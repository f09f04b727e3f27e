"""/etc/umrgen/config.toml: made once from the shipped one, afterwards only compared with it."""

from __future__ import annotations

import re
import secrets
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deploy.install.places import USER, InstallFailed, Places
from deploy.install.shell import say, write_file


@dataclass(frozen=True, slots=True)
class Differences:
    """What the shipped settings and those of the box do not have in common."""

    new: tuple[str, ...]
    """Lines of the shipped file, below a line with their section: settings that the box's file does not name."""
    unknown: tuple[str, ...]
    """`[section] key` of the box's file that this version does not know."""


def see_to_settings(checkout: Path, places: Places) -> None:
    """Write settings and secret where there are none; compare what is there. Raises InstallFailed."""
    shipped = (checkout / "config.toml").read_text(encoding="utf-8")
    if not places.secret.exists():
        write_file(places.secret, secrets.token_hex(32) + "\n", 0o640, USER)
    if not places.config.exists():
        write_file(places.config, make_config(shipped, places), 0o640, USER)
        say(f"wrote {places.config}")
        return
    try:
        found = compare(shipped, places.config.read_text(encoding="utf-8"))
    except ValueError as error:  # no TOML, or no UTF-8
        raise InstallFailed(f"{places.config} cannot be read: {error}") from None
    if found.new:
        say(f"settings that {places.config} does not name have these defaults:")
        say("\n".join(f"  {line}" for line in found.new))
    if found.unknown:
        raise InstallFailed(f"{places.config} has settings that this version does not: {', '.join(found.unknown)}")


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
