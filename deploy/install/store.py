"""The store between two releases: its schema, and the copy of the database that a way back needs.

All of it lies in folders of the services' user, so that user does it: see `inside` and `copies`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from deploy.install.places import InstallFailed, Places
from deploy.install.release import Release
from deploy.install.shell import run_as_service

COPY = "umrgen.sqlite3"


@dataclass(frozen=True, slots=True)
class StoreState:
    """What a release's own Python says of itself and of the store."""

    release_schema: int
    store_schema: int
    """0 where there is no store yet."""
    in_use: int
    """Processes that have the store open."""
    database: str
    """Its file, by [storage] data_dir."""
    keys: int = 0
    jobs_since: int = 0
    keys_since: int = 0
    uploads_since: int = 0

    @property
    def must_migrate(self) -> bool:
        """Whether the release needs another schema than the store has."""
        return 0 < self.store_schema < self.release_schema

    @property
    def came(self) -> str:
        """What came since the copy, in words; empty where nothing did."""
        counts = {"jobs": self.jobs_since, "keys": self.keys_since, "uploads": self.uploads_since}
        return ", ".join(f"{count} {what}" for what, count in counts.items() if count)


def ask(release: Release, places: Places, since: Path | None = None) -> StoreState:
    """Ask a release about the store. Raises InstallFailed, also for settings that it does not take."""
    command: list[str | Path] = [release.python, "-m", "deploy.install.inside", "--config", places.config]
    if since is not None:
        command += ["--since", since]
    return StoreState(**json.loads(run_as_service(*command, cwd=release.folder)))


def migrate(release: Release, places: Places) -> None:
    """Bring the store to the release's schema. Raises InstallFailed; the store is then as it was."""
    run_as_service(release.python, "-m", "umrgen_core.migrate", "--config", places.config, cwd=release.folder)


def require_known(state: StoreState) -> None:
    """Raise InstallFailed for a store that a newer version has made."""
    if state.store_schema > state.release_schema:
        raise InstallFailed(f"the store has schema {state.store_schema}, this version knows {state.release_schema}")


def require_closed(release: Release, places: Places) -> None:
    """Raise InstallFailed while any process has the store open."""
    state = ask(release, places)
    if state.in_use:
        raise InstallFailed(
            f"a process besides the services has {state.database} open: end it ('fuser -v {state.database}' names it)"
        )


def find_copy(old: Release, new: Release, places: Places) -> Path | None:
    """The newest database from before an upgrade of `old` to a release up to `new`; None where none was kept.

    It need not be `new`'s own: an upgrade in between may have been broken off after it had changed the schema.
    """
    found = []
    for copy in places.before.glob(f"*/{COPY}"):
        tail = copy.parent.name.rpartition("-")[2]
        if tail.isdigit() and old.number < int(tail) <= new.number:
            found.append((int(tail), copy))
    return max(found)[1] if found else None


def keep_copy(release: Release, places: Places) -> None:
    """Copy the closed database aside before an upgrade to `release` changes it. Raises InstallFailed."""
    _run_copies(release, places, "keep", places.before / release.name / COPY)


def put_back(release: Release, places: Places, copy: Path) -> str:
    """Let a copy take the place of the closed database; where that one is kept. Raises InstallFailed."""
    return _run_copies(release, places, "put-back", copy)


def _run_copies(release: Release, places: Places, action: str, copy: Path) -> str:
    command = (release.python, "-m", "deploy.install.copies", action, "--config", places.config, "--copy", copy)
    return run_as_service(*command, cwd=release.folder).strip()
