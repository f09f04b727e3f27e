"""A folder of backups, each under the time of its making, of which the newest are kept."""

from __future__ import annotations

import re
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

from umrgen_core.backup import BackupReport, back_up
from umrgen_core.sections import StorageSettings

FORMAT = "umrgen-%Y-%m-%dT%H-%M-%SZ"
NAME = re.compile(r"umrgen-\d{4}-\d\d-\d\dT\d\d-\d\d-\d\dZ")
LONGEST_BACKUP = timedelta(days=1)
"""An unfinished backup that was begun earlier is what a crash left behind."""


def back_up_dated(storage: StorageSettings, folder: Path, keep: int, now: datetime) -> tuple[BackupReport, list[Path]]:
    """Copy the store into a new folder below `folder`, then delete all but the newest `keep` such; what was deleted.

    Nothing is deleted unless the new one is whole, and nothing whose name is not one of ours, ever. Raises as
    `back_up` does.
    """
    for path in folder.glob("*.partial"):
        begun = _find_time(path.stem)
        if begun is not None and begun < now - LONGEST_BACKUP:
            shutil.rmtree(path)
    report = back_up(storage, folder / now.astimezone(UTC).strftime(FORMAT))
    kept = sorted(path for path in folder.iterdir() if _find_time(path.name) is not None)
    old = kept[:-keep]
    for path in old:
        shutil.rmtree(path)
    return report, old


def _find_time(name: str) -> datetime | None:
    """When a backup of this name was begun; None for a name that is not one of ours, such as one of February 30."""
    if NAME.fullmatch(name) is None:
        return None  # strptime alone also takes a month of one digit
    try:
        return datetime.strptime(name, FORMAT).replace(tzinfo=UTC)
    except ValueError:
        return None
