"""Sign-ins that were ended before their time: one empty file each, so that a restart ends none of them anew.

A token that is signed and not expired would go on counting after its cookie is gone. The list is short (a file
lives no longer than a session would) and asked once for each request of the console.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path


class SignOuts:
    """The files below `folder`. Every method blocks."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, nonce: str, now_s: float, session_s: float) -> None:
        """End the sign-in with this nonce, and forget those that would have expired by now."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._path(nonce).touch(mode=0o600)
        os.utime(self._path(nonce), (now_s, now_s))
        for path in self._folder.iterdir():
            with suppress(FileNotFoundError):  # another sign-out was faster
                if path.stat().st_mtime < now_s - session_s:
                    path.unlink()

    def __contains__(self, nonce: str) -> bool:
        return self._path(nonce).exists()

    def _path(self, nonce: str) -> Path:
        return self._folder / hashlib.sha256(nonce.encode()).hexdigest()
