"""The database and its folder: there, whole, ours, on a disk of this machine, and not held up."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from umrgen_cli.doctor.findings import Finding, Patient, good, problem, warning
from umrgen_cli.figures import show_bytes, show_span
from umrgen_core.footprint import size_of, wal_path
from umrgen_core.lock import LOCK_NAME
from umrgen_core.presence import SUFFIX, is_held
from umrgen_core.schema import SCHEMA_VERSION, read_version
from umrgen_core.sqlite import SqliteError, open_untouched

QUICK_CHECK_S = 10.0
STEPS_BETWEEN_LOOKS = 50_000
LOCK_WAIT_S = 1.0
POLL_S = 0.01
LARGE_WAL_BYTES = 128_000_000
HUGE_WAL_BYTES = 1_000_000_000
RESTORE = "stop both processes and put the last backup back: umrgen-admin restore FOLDER"
WAL_MODE = b"\x02\x02"


def check_database(patient: Patient) -> Iterator[Finding]:
    """There, of our schema, in WAL mode, and whole as far as can be told in some seconds."""
    database = patient.settings.storage.database
    if size_of(database) == 0:
        advice = (
            "start umrgen-api or umrgen-infer, which make it; if there was one, look at [storage] data_dir, which is"
            " taken from the folder of the config file"
        )
        yield problem("database", f"there is none at {database}", advice)
        return
    try:
        version = _read_version(database)
    except SqliteError as error:
        yield problem("database", f"{database} cannot be read: {error}", RESTORE)
        return
    yield _judge_schema(version)
    yield _judge_journal(database)
    yield _judge_wal(size_of(wal_path(database)))
    yield _check_pages(database)


def _read_version(database: Path) -> int:
    connection = open_untouched(database)
    try:
        return read_version(connection)
    finally:
        connection.close()


def _judge_schema(version: int) -> Finding:
    if version == SCHEMA_VERSION:
        return good("schema", f"version {version}")
    seen = f"version {version}, this UMRGEN needs {SCHEMA_VERSION}"
    if version < SCHEMA_VERSION:
        return problem("schema", seen, "stop both processes, take a backup, and run 'make migrate'")
    return problem("schema", seen, "install the newer UMRGEN that made it, or restore a backup")


def _judge_journal(database: Path) -> Finding:
    with open(database, "rb") as file:
        file.seek(18)
        mode = file.read(2)
    if mode == WAL_MODE:
        return good("journal", "WAL")
    return warning("journal", "not in WAL mode: another program has changed it", "start either process: it sets it")


def _judge_wal(wal_bytes: int) -> Finding:
    seen = show_bytes(wal_bytes)
    advice = (
        "something reads without end: look for a sqlite shell or a hung umrgen-admin; 'umrgen-admin gc' writes back"
    )
    if wal_bytes > HUGE_WAL_BYTES:
        return problem("write-ahead log", seen, advice)
    if wal_bytes > LARGE_WAL_BYTES:
        return warning("write-ahead log", seen, advice)
    return good("write-ahead log", seen)


def _check_pages(database: Path) -> Finding:
    """Reads the database for ten seconds at most; readers hinder nobody."""
    deadline = time.monotonic() + QUICK_CHECK_S
    connection = open_untouched(database)
    connection.set_progress_handler(lambda: int(time.monotonic() > deadline), STEPS_BETWEEN_LOOKS)
    try:
        first = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    except SqliteError as error:
        if "interrupted" not in str(error):
            return problem("pages", f"damaged: {error}", RESTORE)
        seen = f"good as far as {QUICK_CHECK_S:g} s reach; the database has {show_bytes(size_of(database))}"
        return good("pages", f"{seen}; 'umrgen-admin check' reads all of it")
    finally:
        connection.close()
    if first != "ok":
        return problem("pages", f"damaged: {first.splitlines()[-1]}", RESTORE)
    return good("pages", f"all good ({show_bytes(size_of(database))})")


def check_lock(patient: Patient) -> Iterator[Finding]:
    """The lock of the writers is free again and again, or at least goes from hand to hand."""
    path = patient.settings.storage.data_dir / LOCK_NAME
    if not os.access(path, os.R_OK):
        return
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        wal = wal_path(patient.settings.storage.database)
        began, written, held = time.monotonic(), _find_last_write(wal), True
        while held and time.monotonic() < began + LOCK_WAIT_S:
            held = not _try_lock(fd)
            if held:
                time.sleep(POLL_S)
        if held and _find_last_write(wal) != written:
            yield good("lock", "busy, and writes go through")
        elif held:
            seen = f"never free for {show_span(LOCK_WAIT_S)}: held by {_name_holder(path.stat().st_ino)}"
            yield problem("lock", seen, "nothing can be written meanwhile; if that process is stopped or hung, end it")
        else:
            yield good("lock", "free")
    finally:
        os.close(fd)


def _find_last_write(wal: Path) -> int:
    try:
        return wal.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(fd, fcntl.LOCK_UN)
    return True


def _name_holder(inode: int) -> str:
    for line in Path("/proc/locks").read_text(encoding="ascii", errors="replace").splitlines():
        words = line.split()
        if words[1] == "FLOCK" and words[5].endswith(f":{inode}"):
            return f"process {words[4]}"
    return "a process that cannot be seen from here"


def check_last_stop(patient: Patient) -> Iterator[Finding]:
    """Whether some process ended without putting things in order."""
    folder = patient.settings.storage.data_dir / "run"
    left = [path for path in folder.glob(f"*{SUFFIX}") if not is_held(path)]
    if left:
        seen = f"{len(left)} process{'es' if len(left) > 1 else ''} ended without a clean stop"
        yield warning(
            "last stop", seen, "nothing by hand: the next start checks the database first, which takes longer"
        )
