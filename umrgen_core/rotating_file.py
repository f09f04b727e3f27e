"""A file of lines that is set aside when it is full.

Like the standard library's RotatingFileHandler, without what that does for each line: it asks for the file's kind by
name, formats, encodes and flushes. Here a line is one look at the size and one write.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path


class RotatingFile:
    """`path`, and beside it at most `files` - 1 older ones, at least one: `.1` is the newest of them."""

    def __init__(self, path: Path, most_bytes: int, files: int) -> None:
        self._path = path
        self._most_bytes = most_bytes
        self._files = files
        self._fd: int | None = None
        self._lock = threading.Lock()

    def write(self, line: bytes) -> None:
        """Append a line, with the kernel when this returns. Opened when first needed. Raises OSError."""
        with self._lock:
            fd = self._open() if self._fd is None else self._fd
            if os.fstat(fd).st_size + len(line) > self._most_bytes:  # not counted: others may write here too
                self._set_aside()
                fd = self._open()
            os.write(fd, line)

    def close(self) -> None:
        """Let go of the file; the next line opens it again."""
        with self._lock:
            self._close()

    def _open(self) -> int:
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        return self._fd

    def _close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _set_aside(self) -> None:
        self._close()
        for number in range(self._files - 1, 0, -1):
            source = self._name(number - 1)
            if source.exists():
                source.replace(self._name(number))

    def _name(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}") if number else self._path
