"""Processor time of another process, to the nanosecond."""

from __future__ import annotations

import time
from contextlib import suppress

import psutil

_EXECUTED_TIME = 2
"""CPUCLOCK_SCHED of the kernel: user and system time of all threads, also of those that have ended."""


def read_cpu_s(pid: int) -> float:
    """Seconds that the process has used. The kernel makes a clock's number from a process id like this."""
    return time.clock_gettime_ns((~pid << 3) | _EXECUTED_TIME) / 1e9


def read_family_cpu_s(pid: int) -> float:
    """Seconds that the process and its living children have used."""
    total = read_cpu_s(pid)
    for child in psutil.Process(pid).children(recursive=True):
        with suppress(OSError):  # it has just ended
            total += read_cpu_s(child.pid)
    return total


def read_rss_mb(pid: int) -> float:
    """Memory of the process now, in megabytes."""
    return float(psutil.Process(pid).memory_info().rss) / 1e6
