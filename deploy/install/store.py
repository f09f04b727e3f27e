"""The store between two releases: its schema, and the copy of the database that a way back needs."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from deploy.install.places import InstallFailed, Places
from deploy.install.release import Release
from deploy.install.shell import run, run_as_service, sync

SUFFIXES = ("", "-wal")
"""A database is its file and its log; the third file, an index of the log, is made anew."""


@dataclass(frozen=True, slots=True)
class StoreState:
    """What a release's own Python says of itself and of the store."""

    release_schema: int
    store_schema: int
    """0 where there is no store yet."""
    keys: int
    in_use: int
    """Processes that have the store open."""
    jobs_since: int = 0
    keys_since: int = 0

    @property
    def must_migrate(self) -> bool:
        """Whether the release needs another schema than the store has."""
        return 0 < self.store_schema < self.release_schema


def ask(release: Release, places: Places, since: Path | None = None) -> StoreState:
    """Ask a release about the store. Raises InstallFailed, also for settings that it does not take."""
    command: list[str | Path] = [release.python, "-m", "deploy.install.inside", "--config", places.config]
    if since is not None:
        command += ["--since", since]
    return StoreState(**json.loads(run_as_service(*command, cwd=release.folder)))


def migrate(release: Release, places: Places) -> None:
    """Bring the store to the release's schema. Raises InstallFailed; the store is then as it was."""
    run_as_service(release.python, "-m", "umrgen_core.migrate", "--config", places.config, cwd=release.folder)


def require_closed(release: Release, places: Places) -> None:
    """Raise InstallFailed while any process has the store open."""
    if ask(release, places).in_use:
        raise InstallFailed(
            f"a process besides the services has {places.database} open: end it ('fuser -v {places.database}' names it)"
        )


def find_copy(release: Release, places: Places) -> Path | None:
    """The database as it was before the upgrade to this release; None where that changed no schema."""
    copy = places.before / release.name / places.database.name
    return copy if copy.exists() else None


def keep_copy(release: Release, places: Places) -> None:
    """Copy the closed database aside before an upgrade to `release` changes it. Pictures are not touched by that."""
    folder = places.before / release.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    for path in _list_parts(places.database):
        run("cp", "--archive", "--reflink=auto", path, folder)
    shutil.chown(folder, *_owner(places))
    shutil.chown(places.before, *_owner(places))
    sync(list(folder.iterdir()))


def put_back(release: Release, places: Places) -> Path:
    """Put the database from before the upgrade to `release` back; where the newer one is kept."""
    kept = places.before / release.name / "replaced"
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(mode=0o700)
    for path in _list_parts(places.database):
        path.rename(kept / path.name)
    places.database.with_name(f"{places.database.name}-shm").unlink(missing_ok=True)
    for path in _list_parts(places.before / release.name / places.database.name):
        run("cp", "--archive", "--reflink=auto", path, places.data)
    sync(_list_parts(places.database))
    return kept


def _list_parts(database: Path) -> list[Path]:
    parts = (database.with_name(database.name + suffix) for suffix in SUFFIXES)
    return [part for part in parts if part.exists()]


def _owner(places: Places) -> tuple[int, int]:
    status = places.state.stat()
    return status.st_uid, status.st_gid
