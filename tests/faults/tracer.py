"""ptrace on a running process: something happens at the N-th state-changing system call of all its threads.

strace's `when=N` counts for every thread and every call apart, so some points hide behind others; here
all threads and calls are counted in one order, and N = 1, 2, 3 … visits each until the operation ends
unharmed. Run as a process of its own: `python -m tests.faults.tracer PID N ACTION CALL,CALL…`, where
ACTION is kill, stop (SIGSTOP, once the call is done) or the name of an error (EIO). N = 0 only counts;
1+ strikes at every call from the first on.

Counted are the calls that change what others can see: files, locks, sockets. Not counted: reads, opens
for reading, closes, SQLite's advisory locks (fcntl), memory (SQLite's -shm is written without a call)
and whatever goes to a log. Linux on x86-64.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

NUMBERS = {
    "write": 1, "pwrite64": 18, "writev": 20, "sendto": 44, "sendmsg": 46, "flock": 73, "fsync": 74, "fdatasync": 75,
    "ftruncate": 77, "rename": 82, "mkdir": 83, "link": 86, "unlink": 87, "openat": 257, "unlinkat": 263,
    "renameat": 264, "fallocate": 285, "pwritev": 296, "renameat2": 316,
}  # fmt: skip
OF_PATHS = ("rename", "mkdir", "link", "unlink", "openat", "unlinkat", "renameat", "renameat2")
EVERY_CALL = tuple(NUMBERS)
DISK_CALLS = tuple(name for name in NUMBERS if name not in ("flock", "sendto", "sendmsg", "unlink", "unlinkat"))

_NAMES = {number: name for name, number in NUMBERS.items()}
_POKEUSER, _LISTEN, _SYSCALL, _SEIZE, _INTERRUPT, _GET_INFO = 6, 0x4208, 24, 0x4206, 0x4207, 0x420E
_SYSGOOD_AND_CLONE = 1 | 1 << 3
_EVENT_STOP = 128
_WALL = 0x40000000
_ORIG_RAX, _RAX = 15 * 8, 10 * 8
_ENTRY, _EXIT = 1, 2
_STOPS = (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)

_ptrace = ctypes.CDLL(None, use_errno=True).ptrace
_ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_ptrace.restype = ctypes.c_long


class _Info(ctypes.Structure):
    _fields_ = (
        ("op", ctypes.c_uint8),
        ("arch", ctypes.c_uint32),
        ("ip", ctypes.c_uint64),
        ("sp", ctypes.c_uint64),
        ("nr", ctypes.c_uint64),
        ("args", ctypes.c_uint64 * 6),
    )


@dataclass(frozen=True)
class Report:
    """How many calls were counted, and the call that was struck, if any."""

    count: int
    struck: str | None


class Tracer:
    """The tracing process, from the test's side. Made when every thread is traced."""

    def __init__(self, pid: int, number: int | str, action: str = "kill", calls: tuple[str, ...] = EVERY_CALL) -> None:
        command = [sys.executable, "-m", "tests.faults.tracer", str(pid), str(number), action, ",".join(calls)]
        self._struck: str | None = None
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "attached\n"

    def wait_struck(self) -> str:
        """Wait for the strike; the call that was struck."""
        assert self._process.stdout is not None
        self._struck = self._process.stdout.readline().removeprefix("struck ").strip()
        return self._struck

    def wait_frozen(self) -> None:
        """After a strike of stop: wait until every thread stands still."""
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "frozen yes\n"

    def close(self) -> Report:
        """Let go of the process, if it still lives."""
        self._process.terminate()
        output, _ = self._process.communicate(timeout=20)
        lines = dict(line.split(" ", 1) for line in output.splitlines())
        return Report(int(lines["count"]), lines.get("struck", self._struck))


def _request(request: int, tid: int, address: int = 0, data: int = 0) -> None:
    # ESRCH: the thread has ended; EPERM: it began under a thread that is traced, so it is already.
    if _ptrace(request, tid, address, data) < 0 and ctypes.get_errno() not in (errno.ESRCH, errno.EPERM):
        raise OSError(ctypes.get_errno(), f"ptrace {request:#x} of {tid}")


class _Trace:
    def __init__(self, pid: int, number: str, action: str, calls: list[str]) -> None:
        self._pid = pid
        self._number = int(number.rstrip("+"))
        self._for_good = number.endswith("+")
        self._signal = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}.get(action)
        self._error = 0 if self._signal else getattr(errno, action)
        self._calls = set(calls)
        self._failing: set[int] = set()
        self._frozen: set[int] = set()
        self.count = 0

    def attach(self) -> None:
        seen: set[int] = set()
        while new := {int(task) for task in os.listdir(f"/proc/{self._pid}/task")} - seen:
            for tid in new:
                _request(_SEIZE, tid, 0, _SYSGOOD_AND_CLONE)
                _request(_INTERRUPT, tid)
            seen |= new
        while seen:
            seen.discard(self._step())

    def follow(self) -> None:
        with suppress(ChildProcessError):  # every thread has ended
            while True:
                self._step()

    def _step(self) -> int:
        tid, status = os.waitpid(-1, _WALL)
        if not os.WIFSTOPPED(status):
            return tid
        number, event, deliver = os.WSTOPSIG(status), status >> 16, 0
        if number == signal.SIGTRAP | 0x80:
            self._look(tid)
        elif event == _EVENT_STOP and number in _STOPS:
            _request(_LISTEN, tid)
            self._note_frozen(tid)
            return tid
        elif not event:
            deliver = number
        _request(_SYSCALL, tid, 0, deliver)
        return tid

    def _note_frozen(self, tid: int) -> None:
        self._frozen.add(tid)
        if self._frozen >= {int(task) for task in os.listdir(f"/proc/{self._pid}/task")}:
            print("frozen yes", flush=True)  # not before: a tracer that ends too early takes the signal with it

    def _look(self, tid: int) -> None:
        info = _Info()
        _ptrace(_GET_INFO, tid, ctypes.sizeof(info), ctypes.addressof(info))
        if info.op == _EXIT and tid in self._failing:
            self._failing.discard(tid)
            _request(_POKEUSER, tid, _RAX, -self._error)
        name = _NAMES.get(info.nr) if info.op == _ENTRY else None
        if name not in self._calls or (name == "openat" and not info.args[2] & (os.O_CREAT | os.O_TRUNC)):
            return
        target = "" if name in OF_PATHS else self._target(info.args[0])
        if target.endswith(".log"):
            return
        self.count += 1
        if self.count == self._number or (self._for_good and self.count > self._number):
            self._strike(tid, f"{self.count} {name} {target}")

    def _target(self, fd: int) -> str:
        with suppress(OSError):
            return str(Path(f"/proc/{self._pid}/fd/{fd}").readlink())
        return ""

    def _strike(self, tid: int, call: str) -> None:
        print("struck", call, flush=True)
        if self._signal:
            os.kill(self._pid, self._signal)
            return
        _request(_POKEUSER, tid, _ORIG_RAX, -1)
        self._failing.add(tid)


def _end(*_: object) -> None:
    raise SystemExit


def main() -> None:
    pid, number, action, calls = sys.argv[1:5]
    trace = _Trace(int(pid), number, action, calls.split(","))
    signal.signal(signal.SIGTERM, _end)
    try:
        trace.attach()
        print("attached", flush=True)
        trace.follow()
        signal.pause()  # the process has ended; a second end must not strike the interpreter's own
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("count", trace.count, flush=True)


def wait_stopped(pid: int) -> None:
    """Wait until every thread of a process that got SIGSTOP stands still, also those within a system call."""
    while any(_state(pid, task) not in "TZX" for task in os.listdir(f"/proc/{pid}/task")):
        time.sleep(0.001)


def _state(pid: int, task: str) -> str:
    with suppress(OSError), open(f"/proc/{pid}/task/{task}/stat", encoding="ascii", errors="replace") as file:
        return file.read().rpartition(")")[2].split()[0]
    return "X"


if __name__ == "__main__":
    main()
