"""The file store: pictures below the data directory, published whole or not at all.

A file is published before the row that names it; a row is deleted before the file that it named.
No path is ever built from a request: names come from the store's rows.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO


class Shelf(StrEnum):
    """The folders of the file store."""

    REFERENCES = "references"
    """Sanitised uploads."""
    OUTPUTS = "outputs"
    """Finished pictures."""
    INCOMING = "incoming"
    """Bytes on their way in; nothing here has a row, and what is left behind is swept as orphans."""


@dataclass(frozen=True, slots=True)
class Published:
    """A file that is on disk for good."""

    disk_name: str
    bytes: int
    sha256: str


class FileStore:
    """Files by shelf and name. Every method blocks: call it in a thread."""

    def __init__(self, data_dir: Path) -> None:
        self._root = data_dir / "files"

    def prepare(self) -> None:
        """Make the folders."""
        for shelf in Shelf:
            (self._root / shelf).mkdir(parents=True, exist_ok=True, mode=0o700)

    def folder(self, shelf: Shelf) -> Path:
        """Where the files of a shelf are."""
        return self._root / shelf

    def path(self, shelf: Shelf, disk_name: str) -> Path:
        """Where a file is. The name comes from a row, never from a request."""
        return self._root / shelf / disk_name

    def walk(self) -> Iterator[tuple[Shelf, str]]:
        """Every file on every shelf, whether or not a row names it."""
        for shelf in Shelf:
            with os.scandir(self.folder(shelf)) as entries:
                for entry in entries:
                    yield shelf, entry.name

    def exists(self, shelf: Shelf, disk_name: str) -> bool:
        """Whether the file is there."""
        return self.path(shelf, disk_name).is_file()

    @contextmanager
    def incoming(self) -> Iterator[tuple[BinaryIO, Path]]:
        """A new empty file open for writing and reading; deleted at the end unless published."""
        path = self.path(Shelf.INCOMING, uuid.uuid4().hex)
        with open(path, "x+b") as file:
            try:
                yield file, path
            finally:
                with suppress(FileNotFoundError):
                    path.unlink()

    def publish_bytes(self, shelf: Shelf, disk_name: str, content: bytes) -> Published:
        """Write `content` and publish it."""
        with self.incoming() as (file, path):
            file.write(content)
            file.flush()
            return self.publish(shelf, disk_name, path)

    def publish(self, shelf: Shelf, disk_name: str, source: Path) -> Published:
        """Move a written file to its shelf: synced first, then renamed, then the folder synced."""
        with open(source, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = os.fstat(file.fileno()).st_size
            os.fsync(file.fileno())
        source.rename(self.path(shelf, disk_name))
        self._sync_folder(shelf)
        return Published(disk_name, size, digest)

    def read(self, shelf: Shelf, disk_name: str) -> bytes:
        """The whole file. Raises FileNotFoundError."""
        return self.path(shelf, disk_name).read_bytes()

    def delete(self, shelf: Shelf, disk_name: str) -> None:
        """Remove a file whose row has gone; one that is gone already is no error."""
        with suppress(FileNotFoundError):
            self.path(shelf, disk_name).unlink()

    def _sync_folder(self, shelf: Shelf) -> None:
        fd = os.open(self._root / shelf, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
