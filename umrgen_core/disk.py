"""Free disk: a floor below which nothing new is accepted, and a ballast that is thrown overboard.

A full disk refuses even deletions, since SQLite must write to delete. The ballast is a file that can be
removed without writing anything: the room lets the sweep work, and the ballast is laid in again later.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from umrgen_core.errors import Unavailable
from umrgen_core.sections import StorageSettings

BALLAST_NAME = "ballast"


class DiskGuard:
    """Watches the file system of the data directory."""

    def __init__(self, settings: StorageSettings) -> None:
        self._folder = settings.data_dir
        self._floor_bytes = settings.disk_floor_bytes
        self._ballast_bytes = settings.ballast_bytes

    @property
    def ballast(self) -> Path:
        """The file that can be thrown overboard."""
        return self._folder / BALLAST_NAME

    def free_bytes(self) -> int:
        """Bytes that this user may still write."""
        status = os.statvfs(self._folder)
        return status.f_bavail * status.f_frsize

    def is_low(self) -> bool:
        """Whether free disk is below the floor."""
        return self.free_bytes() < self._floor_bytes

    def require_room(self) -> None:
        """Raise Unavailable when free disk is below the floor."""
        if self.is_low():
            raise Unavailable("The disk is nearly full, so nothing new is accepted. Try again later.")

    def tend(self) -> str | None:
        """Throw the ballast overboard when it is needed, lay it in when there is room; what was done."""
        free = self.free_bytes()
        laid_in = self.ballast.exists()
        if laid_in and free < self._ballast_bytes:
            self.ballast.unlink(missing_ok=True)
            return "released"
        if not laid_in and self._ballast_bytes and free > self._floor_bytes + 2 * self._ballast_bytes:
            return self._lay_in()
        return None

    def _lay_in(self) -> str | None:
        fd = os.open(self.ballast, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, self._ballast_bytes)
        except OSError:
            with suppress(OSError):
                self.ballast.unlink()
            return None
        finally:
            os.close(fd)
        return "laid_in"
