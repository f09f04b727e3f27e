"""Releases: /opt/umrgen/releases/VERSION-N, each with its code and its packages, and `current` that points to one."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from deploy.install.places import InstallFailed, Places
from deploy.install.shell import run, run_as_service, say

RELEASED = ("umrgen_*", "migrations", "deploy", "docs", "*.md", "*.toml", "constraints.txt", "LICENSE")
"""What of a checkout belongs to a release; tests, benchmarks and training stay behind."""
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.egg-info")
KEPT = 3
EXTRAS = "infer,safety,mcp,otel"
NOTE = "RELEASE.json"


@dataclass(frozen=True, slots=True)
class Release:
    """One release on disk."""

    folder: Path
    digest: str
    """Of its files: an install of the same ones again makes no new release."""
    previous: str = ""
    """The name of the release that served before it."""

    @property
    def name(self) -> str:
        """VERSION-N; N only ever grows."""
        return self.folder.name

    @property
    def number(self) -> int:
        """The N of its name."""
        return int(self.name.rpartition("-")[2])

    @property
    def python(self) -> Path:
        """Its own Python."""
        return self.folder / ".venv/bin/python"

    def write_note(self) -> None:
        """Keep beside the code what is known of it; a release without this note is not whole."""
        note = {**asdict(self), "folder": None}
        (self.folder / NOTE).write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")


def read_release(folder: Path) -> Release | None:
    """The release in a folder; None where it is not whole."""
    try:
        note = json.loads((folder / NOTE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return Release(folder, note["digest"], note["previous"])


def list_releases(places: Places) -> list[Release]:
    """Every whole release, oldest first."""
    found = [read_release(folder) for folder in places.releases.glob("*-*")]
    return sorted((release for release in found if release), key=lambda release: release.number)


def find_current(places: Places) -> Release | None:
    """The release that serves."""
    return read_release(places.current.resolve()) if places.current.is_symlink() else None


def find_broken_off(places: Places) -> Release | None:
    """The newest release, where it is newer than the one that serves: its upgrade did not come to an end."""
    current, newest = find_current(places), list_releases(places)[-1:]
    return newest[0] if current and newest and newest[0].number > current.number else None


def build_release(checkout: Path, places: Places, packages_from: Path | None) -> Release:
    """Copy the checkout and make its virtual environment, while whatever serves goes on serving."""
    name = f"{_read_version(checkout)}-{_next_number(places)}"
    folder = places.releases / name
    say(f"building {folder}")
    folder.mkdir(parents=True)
    try:
        _copy(checkout, folder)
        _make_environment(folder, packages_from)
        current = find_current(places)
        release = Release(folder, digest_of(checkout), current.name if current else "")
        release.write_note()
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return release


def point_to(release: Release, places: Places) -> None:
    """Let `current` point to a release, at one instant."""
    new = places.current.with_name("current.new")
    new.unlink(missing_ok=True)
    new.symlink_to(release.folder.relative_to(places.opt))
    new.rename(places.current)


def remove(release: Release, places: Places) -> None:
    """Remove a release that does not serve, and the copy of the database that belongs to it.

    A folder with a database that was in use stays: it may hold the only record of jobs that were accepted.
    """
    shutil.rmtree(release.folder)
    copies = places.before / release.name
    if copies.is_dir() and not any(copies.glob("replaced-*")):
        run_as_service("rm", "--recursive", "--force", "--", copies, cwd=places.opt)


def prune(places: Places) -> None:
    """Keep the last releases, the one that serves and the one before it."""
    current = find_current(places)
    named = {current.name, current.previous} if current else set()
    for release in list_releases(places)[:-KEPT]:
        if release.name not in named:
            say(f"removing {release.folder}")
            remove(release, places)


def digest_of(checkout: Path) -> str:
    """SHA-256 over what would be released."""
    digest = hashlib.sha256()
    for path in _list_files(checkout):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(checkout)}\0{content}\0{os.access(path, os.X_OK)}\n".encode())
    return digest.hexdigest()


def _list_files(checkout: Path) -> Iterator[Path]:
    for top in _list_tops(checkout):
        inside = top.rglob("*") if top.is_dir() else [top]
        yield from sorted(p for p in inside if p.is_file() and "__pycache__" not in p.parts)


def _list_tops(checkout: Path) -> list[Path]:
    return sorted({path for pattern in RELEASED for path in checkout.glob(pattern)})


def _read_version(checkout: Path) -> str:
    try:
        project = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    except FileNotFoundError:
        raise InstallFailed(f"{checkout} is no checkout of UMRGEN: run make install from one") from None
    return str(project["version"])


def _next_number(places: Places) -> int:
    """One more than any folder there, whole or not, and than any whose database is kept."""
    folders = [*places.releases.glob("*-*"), *places.before.glob("*-*")]
    tails = [path.name.rpartition("-")[2] for path in folders]
    return 1 + max((int(tail) for tail in tails if tail.isdigit()), default=0)


def _copy(checkout: Path, folder: Path) -> None:
    for top in _list_tops(checkout):
        if top.is_dir():
            shutil.copytree(top, folder / top.name, ignore=LEFT_OUT)
        else:
            shutil.copy2(top, folder / top.name)
    run("chmod", "-R", "u=rwX,go=rX", folder)  # readable by the services, whatever the checkout's umask was
    run("chown", "-R", "root:root", folder)


def _make_environment(folder: Path, packages_from: Path | None) -> None:
    environment = folder / ".venv"
    pip = (environment / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    if packages_from is None:
        run(sys.executable, "-m", "venv", environment)
        say("installing its packages (gigabytes the first time)")
        pinned = (*pip, "--constraint", "constraints.txt")
        run(*pinned, "torch", cwd=folder)
        run(*pinned, "--editable", f".[{EXTRAS}]", cwd=folder)
    else:
        run(sys.executable, "-m", "venv", "--without-pip", environment)  # pip is among what is borrowed
        _borrow_packages(environment, packages_from)
        run(*pip, "--no-index", "--no-deps", "--no-build-isolation", "--editable", ".", cwd=folder)
    run(environment / "bin/python", "-m", "compileall", "-q", *folder.glob("umrgen_*"), folder / "migrations")


def _borrow_packages(environment: Path, lender: Path) -> None:
    """Let an environment see the packages of another one, but not the projects that were installed editable there."""
    tail = Path("lib/python3.11/site-packages")
    if not (lender / tail).is_dir():
        raise InstallFailed(f"{lender} is no virtual environment of Python 3.11")
    (environment / tail / "borrowed.pth").write_text(f"{lender / tail}\n", encoding="utf-8")
