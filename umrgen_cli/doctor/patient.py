"""Reads what can be read of a configuration and a store, however broken they are."""

from __future__ import annotations

import asyncio
import os
import re
import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import SettingsError

from umrgen_cli.doctor.addresses import find_addresses
from umrgen_cli.doctor.findings import Patient
from umrgen_core.clock import Clock
from umrgen_core.config import PREFIX, Settings, load_settings, with_absolute_paths
from umrgen_core.errors import ConfigError, SchemaError, Unavailable
from umrgen_core.overview import Overview, OverviewReader
from umrgen_core.reader import Reader
from umrgen_core.schema import check_version, read_version
from umrgen_core.sqlite import SqliteError, open_untouched
from umrgen_core.statements import load_statements

MOST_REPAIRS = 20
DATA_DIR = f"{PREFIX}STORAGE__DATA_DIR"


async def admit(config: Path, clock: Clock, *, deep: bool) -> Patient:
    """Look at the configuration and at the store. Raises nothing for either."""
    settings, problems = read_settings(config)
    overview, store_problem = await _read_overview(settings, clock)
    listening = await asyncio.to_thread(find_addresses, config)
    return Patient(config, settings, clock, problems, overview, store_problem, deep, listening=listening)


def read_settings(config: Path) -> tuple[Settings, tuple[str, ...]]:
    """The settings, and what is wrong with them. What is wrong has its default instead."""
    try:
        return load_settings(config), ()
    except ConfigError as error:
        problems = error.message.splitlines()
    text = config.read_text(encoding="utf-8", errors="replace") if os.access(config, os.R_OK) else ""
    settings = _salvage(_parse_most(text))
    return with_absolute_paths(settings, config.resolve().parent), tuple(_with_line(line, text) for line in problems)


def _parse_most(text: str) -> dict[str, Any]:
    """The file without the lines that are no TOML."""
    lines = text.splitlines()
    for _ in range(MOST_REPAIRS):
        try:
            return tomllib.loads("\n".join(lines))
        except tomllib.TOMLDecodeError as error:
            found = re.search(r"line (\d+)", str(error))
            if found is None or int(found[1]) > len(lines):
                break
            lines[int(found[1]) - 1] = ""
    return {}


def _salvage(tree: dict[str, Any]) -> Settings:
    """The settings without the keys that are wrong."""
    for _ in range(MOST_REPAIRS):
        try:
            return Settings(**tree)
        except ValidationError as error:
            dropped = [_drop(tree, problem["loc"]) for problem in error.errors()]
            if not any(dropped):
                break
        except SettingsError:
            break
    settings = Settings.model_construct()
    data_dir = os.environ.get(DATA_DIR) or tree.get("storage", {}).get("data_dir")
    storage = settings.storage.model_copy(update={"data_dir": Path(data_dir)} if isinstance(data_dir, str) else {})
    return settings.model_copy(update={"storage": storage})


def _drop(tree: dict[str, Any], place: tuple[int | str, ...]) -> bool:
    """Remove a key, or the whole of a list or section that has no such key; whether there was anything."""
    for depth in range(min(len(place), 3), 0, -1):
        parent: Any = tree
        for part in place[: depth - 1]:
            parent = parent.get(part) if isinstance(parent, dict) else None
        if isinstance(parent, dict) and parent.pop(place[depth - 1], None) is not None:
            return True
    return False


def _with_line(line: str, text: str) -> str:
    """A problem of `load_settings` with the number of the line that it is about, where that can be told."""
    found = re.match(r"\[(?P<section>[\w.-]+)\] (?P<key>\w+)", line)
    if found is None:
        return line
    section = ""
    for number, written in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[([^\]]+)\]", written):
            section = header[1].strip()
        elif section == found["section"] and re.match(rf"\s*{found['key']}\s*=", written):
            return f"line {number}: {line}"
    return line


async def _read_overview(settings: Settings, clock: Clock) -> tuple[Overview | None, str]:
    database = settings.storage.database
    try:
        _require_ours(database)
    except (SchemaError, SqliteError) as error:
        return None, str(error)
    except OSError:
        return None, "there is no store, or it may not be read"
    reader = Reader(database, open_untouched)
    await reader.open()
    try:
        return await OverviewReader(reader, load_statements(), clock, settings).read(most_finished=50), ""
    except Unavailable as error:
        return None, error.message
    finally:
        await reader.close()


def _require_ours(database: Path) -> None:
    """Raise OSError, SqliteError or SchemaError for a store that cannot be read by this version."""
    if database.stat().st_size == 0:
        raise SchemaError("there is no store: its file is empty")
    connection = open_untouched(database)
    try:
        check_version(read_version(connection), database)
    finally:
        connection.close()
