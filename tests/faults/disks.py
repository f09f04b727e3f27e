"""Small disks of the test's own: an ext4 in an image file, a tmpfs. They need root and loop devices."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("mkfs.ext4") is None, reason="mounting needs root and e2fsprogs"
)


def make_image(image: Path, megabytes: int) -> None:
    with open(image, "wb") as file:
        file.truncate(megabytes << 20)
    _run("mkfs.ext4", "-q", "-F", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0", str(image))


def repair_image(image: Path) -> None:
    """Replay the journal as a boot does. Raises when e2fsck is left with errors."""
    done = subprocess.run(["e2fsck", "-f", "-y", str(image)], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stdout


def copy_image(image: Path, copy: Path) -> None:
    _run("cp", "--sparse=always", str(image), str(copy))


@contextmanager
def mounted_image(image: Path, folder: Path) -> Iterator[Path]:
    """The image's file system; nothing reaches the image but what is synced (commit=300 keeps the journal back)."""
    with _mounted(folder, "-o", "loop,data=ordered,commit=300", str(image)):
        yield folder


@contextmanager
def mounted_tmpfs(folder: Path, megabytes: int) -> Iterator[Path]:
    with _mounted(folder, "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs"):
        yield folder


@contextmanager
def _mounted(folder: Path, *arguments: str) -> Iterator[None]:
    folder.mkdir(parents=True)
    _run("mount", *arguments, str(folder))
    try:
        yield
    finally:
        _run("umount", "--lazy", str(folder))


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
