"""Files are checked before they are shown: a damaged picture is never served as good.

A file's sha256 is compared with its row at the first look after a start and whenever size, inode or
modification time differ from what they were then; in between those three suffice.
"""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict

from umrgen_core.files import FileStore, Shelf

MAX_REMEMBERED = 200_000

Fingerprint = tuple[int, int, int]


class VerifiedFiles:
    """Remembers which files were whole. Blocks: call it in a thread."""

    def __init__(self, files: FileStore) -> None:
        self._files = files
        self._whole: OrderedDict[tuple[Shelf, str], Fingerprint] = OrderedDict()

    def is_whole(self, shelf: Shelf, disk_name: str, sha256: str, *, look_again: bool = False) -> bool:
        """Whether the file is there and is what its row says. `look_again` hashes in any case."""
        key = (shelf, disk_name)
        try:
            with open(self._files.path(shelf, disk_name), "rb") as file:
                fingerprint = _fingerprint(file.fileno())
                if self._whole.get(key) == fingerprint and not look_again:
                    return True
                whole = hashlib.file_digest(file, "sha256").hexdigest() == sha256
        except OSError:
            whole = False
        if whole:
            self._remember(key, fingerprint)
        else:
            self._whole.pop(key, None)
        return whole

    def _remember(self, key: tuple[Shelf, str], fingerprint: Fingerprint) -> None:
        self._whole[key] = fingerprint
        if len(self._whole) > MAX_REMEMBERED:
            self._whole.popitem(last=False)


def _fingerprint(fd: int) -> Fingerprint:
    status = os.fstat(fd)
    return status.st_size, status.st_ino, status.st_mtime_ns
