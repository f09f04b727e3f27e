"""The folder of the store: on a disk of this machine, closed to others, and all of one owner."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from pathlib import Path

from umrgen_cli.doctor.findings import Finding, Patient, good, problem, warning

OF_NETWORKS = ("nfs", "cifs", "smb", "9p", "afs", "ceph", "gluster", "lustre", "fuse.sshfs", "fuse.glusterfs", "ocfs2")
"""File systems whose locks or shared memory do not hold what SQLite needs of them."""


def check_folder(patient: Patient) -> Iterator[Finding]:
    """On a disk of this machine, closed to others, and all of one owner."""
    folder = patient.settings.storage.data_dir
    if not folder.is_dir():
        return
    kind = find_file_system(folder)
    if kind.startswith(OF_NETWORKS):
        advice = "move [storage] data_dir to a disk of this machine: locks and shared memory do not work over a network"
        yield problem("file system", f"{folder} is on {kind}", advice)
    else:
        yield good("file system", f"{folder} is on {kind or 'a file system of no known kind'}")
    yield from _check_owner(folder)


def _check_owner(folder: Path) -> Iterator[Finding]:
    status = folder.stat()
    owner = _name_user(status.st_uid)
    if status.st_mode & 0o007:
        yield warning("permissions", f"everybody on this machine may look into {folder}", f"chmod o-rwx {folder}")
    if os.geteuid() not in (0, status.st_uid) and not os.access(folder, os.W_OK | os.X_OK):
        yield warning("owner", f"{folder} belongs to {owner}, this command runs as another", f"sudo -u {owner} it")
        return
    strangers = [path for path in _list_own(folder) if path.lstat().st_uid != status.st_uid]
    if strangers:
        seen = f"{strangers[0]} belongs to {_name_user(strangers[0].lstat().st_uid)}, its folder to {owner}"
        yield problem("owner", seen, f"chown -R {owner} {folder}: what ran as another user left files behind")
    elif not status.st_mode & 0o200:
        yield problem("permissions", f"{folder} may not be written", f"chmod u+w {folder}")
    else:
        yield good("owner", f"all of it is {owner}'s")


def _list_own(folder: Path) -> list[Path]:
    """What both processes must be able to write, down to the shelves but without the pictures on them."""
    return [path for pattern in ("*", "run/*", "log/*", "files/*") for path in folder.glob(pattern)]


def _name_user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def find_file_system(folder: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """The kind of file system that a folder is on, such as ext4; empty where it cannot be told."""
    best, kind = "", ""
    place = f"{folder.resolve()}/"
    for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines():
        before, _, after = line.partition(" - ")
        point = before.split()[4].replace("\\040", " ").rstrip("/") + "/"
        if place.startswith(point) and len(point) >= len(best):
            best, kind = point, after.split()[0]
    return kind
