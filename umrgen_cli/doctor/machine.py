"""What the machine has left: disk, descriptors, and the right time."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Iterator
from pathlib import Path

from umrgen_cli.doctor.findings import Finding, Patient, good, problem, warning
from umrgen_cli.figures import show_bytes, show_span
from umrgen_core.clock import Clock, format_time
from umrgen_core.footprint import list_processes, read_footprint

FEW = 0.05
FULL = 0.8
LEAST_DESCRIPTORS = 1024
BEHIND_S = 10.0
LEAP_S = 300.0
"""As much as pauses retention; a process takes some of it from its start to its marker."""
START_FIELD = 19
"""Of /proc/PID/stat behind the name: when the process started, in ticks of boot time."""
TIME_ERROR = 5
"""What adjtimex answers where nothing sets the clock."""
TIMEX_BYTES = 256


def check_disk(patient: Patient) -> Iterator[Finding]:
    """Room above the floor, the ballast in its place, and inodes."""
    storage = patient.settings.storage
    if not storage.data_dir.is_dir():
        return
    footprint = read_footprint(storage)
    floor = storage.disk_floor_bytes
    seen = f"{show_bytes(footprint.free_bytes)} of {show_bytes(footprint.total_bytes)} free, floor {show_bytes(floor)}"
    room = "make room on it; 'umrgen-admin stats' shows what UMRGEN keeps, [storage] retention_s for how long"
    if footprint.free_bytes < floor:
        yield problem("disk", f"{seen}: nothing new is accepted", room)
    elif footprint.free_bytes < 2 * floor:
        yield warning("disk", seen, room)
    else:
        yield good("disk", seen)
    yield from _check_inodes(storage.data_dir)
    if storage.ballast_bytes and not footprint.has_ballast:
        advice = "the web tier lays it in again once the disk has room; until then a full disk refuses even deletions"
        yield warning("ballast", f"not laid in ({show_bytes(storage.ballast_bytes)})", advice)
    elif storage.ballast_bytes:
        yield good("ballast", f"{show_bytes(storage.ballast_bytes)} laid in")
    if patient.overview is not None:
        usage = patient.overview.usage
        outputs, references = show_bytes(usage.output_bytes), show_bytes(usage.reference_bytes)
        yield good("kept files", f"{outputs} of outputs, {references} of references ({usage.references})")


def _check_inodes(folder: Path) -> Iterator[Finding]:
    status = os.statvfs(folder)
    if status.f_files and status.f_favail < FEW * status.f_files:
        seen = f"{status.f_favail} of {status.f_files} left"
        yield problem("inodes", seen, "delete small files on this file system: none can be made without an inode")


def check_descriptors(patient: Patient) -> Iterator[Finding]:
    """How many files each process may have open, and has."""
    for process in list_processes(patient.settings.storage.data_dir):
        folder = Path(f"/proc/{process.pid}")
        try:
            used = len(os.listdir(folder / "fd"))
            limit = re.search(r"Max open files\s+(\d+)", (folder / "limits").read_text(encoding="ascii"))
        except OSError:  # another user's, or gone
            continue
        if limit is None:
            continue
        most = int(limit[1])
        seen = f"{used} of {most} in use by process {process.pid} ({process.kind or 'other'})"
        if used > FULL * most or most < LEAST_DESCRIPTORS:
            yield warning("descriptors", seen, "raise LimitNOFILE= in its unit, or 'ulimit -n' before it is started")
        else:
            yield good("descriptors", seen)


def check_clock(patient: Patient) -> Iterator[Finding]:
    """Wall time goes with boot time, is behind nothing that was written, and is set by somebody."""
    now_us = patient.clock.wall_us()
    if (leap_s := _find_leap_s(patient)) > LEAP_S:
        advice = "see what set it; if it is right now, restart the web tier: retention pauses until then"
        yield warning("clock", f"wall time has leapt by {show_span(leap_s)} since a process started", advice)
    newest_us = _find_newest_us(patient)
    if newest_us > now_us + BEHIND_S * 1e6:
        seen = f"{show_span((newest_us - now_us) / 1e6)} behind what the store holds ({format_time(newest_us)[:19]})"
        yield problem("clock", seen, "set the clock: 'timedatectl set-ntp true'")
    elif _is_unset():
        yield warning("clock", "nothing keeps it right", "install chrony or systemd-timesyncd")
    else:
        yield good("clock", f"{format_time(now_us)[:19]} UTC")


def _find_leap_s(patient: Patient) -> float:
    """How far wall time and boot time have moved apart since one of the processes started."""
    now_us = patient.clock.wall_us()
    leaps = [
        abs((now_us - process.started_at_us) / 1e6 - age_s)
        for process in list_processes(patient.settings.storage.data_dir)
        if (age_s := _find_age_s(process.pid, patient.clock)) is not None
    ]
    return max(leaps, default=0.0)


def _find_age_s(pid: int, clock: Clock) -> float | None:
    """Boot time since a process of ours started; None for what is gone or cannot be ours, as in another container."""
    folder = Path(f"/proc/{pid}")
    try:
        if b"umrgen" not in (folder / "cmdline").read_bytes():
            return None
        fields = (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return clock.boot_ms() / 1000 - int(fields[START_FIELD]) / os.sysconf("SC_CLK_TCK")


def _find_newest_us(patient: Patient) -> int:
    if patient.overview is None:
        return 0
    return max((line.finished_at_us for line in patient.overview.finished), default=0)


def _is_unset() -> bool:
    """Whether the kernel says that nobody sets its clock; not where it may not be asked."""
    adjtimex = getattr(ctypes.CDLL(None, use_errno=True), "adjtimex", None)
    return adjtimex is not None and adjtimex(ctypes.create_string_buffer(TIMEX_BYTES)) == TIME_ERROR
