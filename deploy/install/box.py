"""What the box must have, looked at before anything is changed."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import socket
import sys
from pathlib import Path

from deploy.install.places import USER, InstallFailed, Places
from deploy.install.shell import run, warn

COMMANDS = {"systemctl": "systemd", "useradd": "passwd", "runuser": "util-linux", "flock": "util-linux"}
"""What is called, and the Debian package that has it."""
HIDDEN = ("/root", "/home", "/run/user", "/tmp", "/var/tmp")  # noqa: S108 - looked at, never written
"""Folders that the units do not let the services see."""
PACKAGES_BYTES = 12 << 30
"""A virtual environment with torch for CUDA, and what pip needs meanwhile."""
CODE_BYTES = 256 << 20
COMMENT = "UMRGEN image service"
"""Of the user that we make, which tells it from one that was there before."""


def require_root() -> None:
    """Raise InstallFailed for anybody else."""
    if os.geteuid() != 0:
        raise InstallFailed("this changes the system: run it with sudo")


def require_systemd() -> None:
    """Raise InstallFailed where systemd is not in charge."""
    if not Path("/run/systemd/system").is_dir():
        raise InstallFailed("systemd is not running this machine; without it, make run serves in the foreground")


def require_own_place(checkout: Path, places: Places) -> None:
    """Raise InstallFailed for a checkout where the releases go: an uninstall would remove it."""
    if checkout.is_relative_to(places.opt) or (places.opt / ".git").exists():
        raise InstallFailed(f"releases go to {places.opt}: keep the checkout elsewhere, such as in /usr/local/src")


def require_programs() -> None:
    """Raise InstallFailed with the packages to install."""
    missing = {package for command, package in COMMANDS.items() if not shutil.which(command)}
    if missing:
        raise InstallFailed(f"programs are missing: apt install {' '.join(sorted(missing))}")


def require_python(*, with_pip: bool) -> None:
    """Raise InstallFailed unless this Python can serve: the environment is made from it."""
    advice = "apt install python3.11 python3.11-venv, then make install PYTHON=/usr/bin/python3.11"
    if sys.version_info[:2] != (3, 11):
        raise InstallFailed(f"Python 3.11 is needed, this is {sys.version.split()[0]}: {advice}")
    if with_pip and importlib.util.find_spec("ensurepip") is None:
        raise InstallFailed("python3.11 cannot make virtual environments: apt install python3.11-venv")
    real = Path(sys.base_prefix).resolve()
    if any(real.is_relative_to(folder) for folder in HIDDEN):
        raise InstallFailed(f"the services may not see {real}, where this Python lives: {advice}")


def require_room(places: Places, *, with_packages: bool) -> None:
    """Raise InstallFailed where a release would not fit."""
    needed = PACKAGES_BYTES if with_packages else CODE_BYTES
    folder = next(path for path in (places.opt, *places.opt.parents) if path.exists())
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InstallFailed(f"{folder} has {free >> 20} MiB free, a release takes up to {needed >> 20} MiB")


def require_free_addresses(socket_unit: str) -> None:
    """Raise InstallFailed where somebody else listens on an address of the socket unit."""
    for line in socket_unit.splitlines():
        if not line.startswith("ListenStream="):
            continue
        host, _, port = line.partition("=")[2].rpartition(":")
        if port.isdigit() and (has_ipv6() or not host.startswith("[")):
            _require_free(host.strip("[]"), int(port))


def has_ipv6() -> bool:
    """Whether the box has the loopback address of IPv6; where it is switched off, no socket can listen there."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


def _require_free(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise InstallFailed(
                f"{host} port {port} cannot be had ({error.strerror}): stop what listens there ('ss -ltnp' names it)"
            ) from None


def make_user(places: Places) -> None:
    """Make the services' user, without a login."""
    try:
        pwd.getpwnam(USER)
    except KeyError:
        home = ("--home-dir", places.state, "--no-create-home", "--shell", "/usr/sbin/nologin")
        run("useradd", "--system", "--user-group", *home, "--comment", COMMENT, USER)


def make_folders(places: Places) -> None:
    """Make them, as they must be: only root writes code and settings, only the services see the data.

    What an older user of the services has left (its number was another one) becomes the new one's.
    """
    for folder, owner, mode in (
        (places.opt, "root:root", "755"),
        (places.releases, "root:root", "755"),
        (places.etc, f"root:{USER}", "750"),
        (places.state, f"{USER}:{USER}", "700"),
        (places.backups, f"{USER}:{USER}", "700"),
    ):
        folder.mkdir(parents=True, exist_ok=True)
        if USER in owner and not _is_owned(folder, owner):
            run("chown", "--recursive", "-H", "--no-dereference", owner, folder)
        run("chown", owner, folder)
        run("chmod", mode, folder)


def _is_owned(folder: Path, owner: str) -> bool:
    status = folder.stat()
    user, _, group = owner.partition(":")
    return (status.st_uid, status.st_gid) == (pwd.getpwnam(user).pw_uid, pwd.getpwnam(group).pw_gid)


def remove_user(places: Places) -> None:
    """Remove the services' user if we made it. The backups become root's: its number may be given to another."""
    try:
        if pwd.getpwnam(USER).pw_gecos != COMMENT:
            warn(f"the user {USER} stays: it was there before")
            return
    except KeyError:
        return
    if places.backups.exists():
        run("chown", "--recursive", "-H", "--no-dereference", "root:root", places.backups)
    run("userdel", USER)
