"""The pool of sanitiser children: started when first needed, replaced when one dies."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from umrgen_api.fates import Fate
from umrgen_core.errors import InvalidImage, Unavailable
from umrgen_core.logs import get_logger
from umrgen_core.sections import UploadSettings

START_TIMEOUT_S = 20.0
END_TIMEOUT_S = 1.0
FROM_OUTSIDE = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGKILL})
"""Signals that no limit of a child sends, and no crash: somebody ended it, or the machine ran out of memory."""
LOG = get_logger("sanitiser")


@dataclass(frozen=True, slots=True)
class CleanImage:
    """What the sanitiser wrote, and the size of what it read."""

    format: str
    extension: str
    width: int
    height: int
    source_width: int
    source_height: int


class ChildDied(Exception):
    """The child ended in the middle of a picture: a limit struck, or the decoder crashed."""


class _Child:
    """One process and this end of its channel."""

    def __init__(self, settings: UploadSettings) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-I",
                    "-m",
                    "umrgen_api.sanitiser",
                    str(os.getpid()),
                    str(settings.memory_bytes),
                    str(settings.cpu_s),
                ],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={"PATH": os.environ.get("PATH", ""), "OMP_NUM_THREADS": "1"},
                close_fds=True,
            )
        ours.settimeout(0)
        self._channel = ours

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    async def wait_ready(self) -> None:
        async with asyncio.timeout(START_TIMEOUT_S):
            await self._read_line()

    async def sanitise(self, source: int, output: int, timeout_s: float) -> dict[str, object]:
        socket.send_fds(self._channel, [b"picture\n"], [source, output])
        async with asyncio.timeout(timeout_s):
            answer: dict[str, object] = json.loads(await self._read_line())
            return answer

    def was_ended_from_outside(self) -> bool:
        """Of a child that is ending: whether the picture had no part in it. Blocks for END_TIMEOUT_S at most."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(END_TIMEOUT_S)
        return -(self._process.returncode or 0) in FROM_OUTSIDE

    async def _read_line(self) -> bytes:
        line = b""
        while not line.endswith(b"\n"):
            try:
                piece = await asyncio.get_running_loop().sock_recv(self._channel, 4096)
            except ConnectionError:
                piece = b""
            if not piece:
                raise ChildDied
            line += piece
        return line

    def end(self) -> None:
        self._channel.close()
        self._process.kill()
        self._process.wait()


class SanitiserPool:
    """Decodes pictures elsewhere, at most `processes` at a time and `waiting` behind them."""

    def __init__(self, settings: UploadSettings, note: Callable[[Fate, float], None] = lambda *_: None) -> None:
        """`note` is told what became of each picture, and after how many seconds."""
        self._settings = settings
        self._note = note
        self._idle: list[_Child] = []
        self._busy: set[_Child] = set()
        self._slots = asyncio.Semaphore(settings.processes)
        self._waiting = 0

    async def sanitise(self, source: Path, output: Path) -> CleanImage:
        """Write a clean re-encode of `source` to `output`.

        Raises InvalidImage, or Unavailable when too many uploads wait already or no child can finish it now.
        """
        began = time.perf_counter()
        try:
            image = await self._sanitise(source, output)
        except (InvalidImage, Unavailable) as error:
            fate = Fate(error.fate) if isinstance(error, InvalidImage) else Fate.BUSY
            self._note(fate, time.perf_counter() - began)
            raise
        self._note(Fate.ACCEPTED, time.perf_counter() - began)
        return image

    async def _sanitise(self, source: Path, output: Path) -> CleanImage:
        if self._waiting >= self._settings.waiting:
            raise Unavailable("Too many uploads at once; try again shortly.")
        self._waiting += 1
        try:
            async with self._slots:
                answer = await self._run(source, output)
        finally:
            self._waiting -= 1
        if not answer.pop("ok"):
            raise InvalidImage(str(answer["reason"]), str(answer["fate"]))
        return CleanImage(**answer)  # type: ignore[arg-type]

    async def _run(self, source: Path, output: Path) -> dict[str, object]:
        child = await self._take_child()
        self._busy.add(child)
        try:
            with open(source, "rb") as source_file, open(output, "r+b") as output_file:  # noqa: ASYNC230 - local, ours
                answer = await child.sanitise(source_file.fileno(), output_file.fileno(), self._settings.timeout_s)
        except (ChildDied, TimeoutError, ConnectionError, ValueError) as error:
            LOG.warning("sanitiser_died")
            if isinstance(error, ChildDied) and await asyncio.to_thread(child.was_ended_from_outside):
                raise Unavailable("The image decoder was ended in the middle of it. Send the image again.") from None
            fate = Fate.TIMED_OUT if isinstance(error, TimeoutError) else Fate.KILLED
            raise InvalidImage("decoding it takes more time or memory than is allowed", fate) from None
        else:
            self._idle.append(child)
            return answer
        finally:
            self._busy.discard(child)
            if child not in self._idle:
                await asyncio.to_thread(child.end)

    async def _take_child(self) -> _Child:
        while self._idle:
            child = self._idle.pop()
            if child.alive:
                return child
            await asyncio.to_thread(child.end)
        return await self._start()

    async def _start(self) -> _Child:
        child = _Child(self._settings)
        try:
            await child.wait_ready()
        except (ChildDied, TimeoutError):
            await asyncio.to_thread(child.end)
            raise Unavailable("The image decoder does not start; the owner's log says why.") from None
        return child

    async def close(self) -> None:
        """End every child."""
        for child in [*self._idle, *self._busy]:
            with suppress(OSError):
                await asyncio.to_thread(child.end)
        self._idle.clear()
