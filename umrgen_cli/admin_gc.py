"""`umrgen-admin gc`."""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import asdict
from typing import Any

from umrgen_cli.admin_command import Box, add_command, add_json_option, print_json, show_count
from umrgen_core.checkpoint import Shrunk
from umrgen_core.errors import OperatorError
from umrgen_core.garbage import Garbage, GarbageCollection


def add_gc_command(commands: Any, shared: argparse.ArgumentParser) -> None:
    """Add the command to the parser of umrgen-admin."""
    gc = add_command(commands, shared, "gc", _collect, "throw away now what has expired and what was left behind")
    gc.add_argument("--dry-run", action="store_true", help="only say what there is")
    gc.add_argument("--vacuum", action="store_true", help="write the database anew; both processes must be stopped")
    add_json_option(gc)


async def _collect(box: Box, options: argparse.Namespace) -> None:
    if options.dry_run and options.vacuum:
        raise OperatorError("--dry-run changes nothing, so it goes with no --vacuum")
    collection = GarbageCollection(box.database, box.settings, box.hints)
    found = await (collection.look() if options.dry_run else collection.collect(shrink=options.vacuum))
    if options.json:
        print_json(_render(found))
    else:
        _show(found, done=not options.dry_run)


def _render(found: Garbage) -> dict[str, object]:
    expired = {name: value for name, value in asdict(found.expired).items() if name != "files"}
    return {
        "expired": expired | {"files": len(found.expired.files)},
        "orphans": [asdict(orphan) for orphan in found.orphans],
        "orphans_deleted": found.orphans_deleted,
        "leftovers": list(found.leftovers),
        "other_processes": found.others,
        "store": None if found.shrunk is None else asdict(found.shrunk),
    }


def _show(found: Garbage, *, done: bool) -> None:
    expired = found.expired
    kinds = {"job": expired.jobs, "reference": expired.references, "idempotency record": expired.replays}
    counts = ", ".join(show_count(count, kind) for kind, count in kinds.items())
    print(f"{'deleted as expired' if done else 'expired'}: {counts}")
    print(f"files that no row names: {_describe_orphans(found, done=done)}")
    print(f"left behind in the run directory: {', '.join(found.leftovers) or 'nothing'}")
    if found.shrunk is not None:
        _show_store(found.shrunk)
    if not done:
        print("nothing was changed")


def _describe_orphans(found: Garbage, *, done: bool) -> str:
    if not found.orphans:
        return "none"
    shelves = Counter(orphan.shelf.value for orphan in found.orphans)
    size = sum(orphan.bytes for orphan in found.orphans)
    what = ", ".join(f"{count} in {shelf}" for shelf, count in sorted(shelves.items())) + f" ({size} bytes)"
    if found.others:
        return f"{what}; left alone, since a process at work may yet need them: the web tier deletes them in time"
    return f"{what}, deleted" if done else what


def _show_store(shrunk: Shrunk) -> None:
    print(f"write-ahead log: {shrunk.wal_before_bytes} bytes before, {shrunk.wal_bytes} after")
    if shrunk.database_before_bytes != shrunk.database_bytes:
        print(f"database: {shrunk.database_before_bytes} bytes before, {shrunk.database_bytes} after")
    if not shrunk.complete:
        print("a reader was in the way of the rest of the log; try again in a moment")
