"""`umrgen-admin`: what the owner does on the box."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from umrgen_cli.admin_accounts import add_commands
from umrgen_cli.admin_doctor import add_doctor_command
from umrgen_cli.admin_gc import add_gc_command
from umrgen_cli.admin_jobs import add_job_commands
from umrgen_cli.admin_queue import add_queue_commands
from umrgen_cli.admin_stats import add_stats_command
from umrgen_cli.admin_top import add_top_command
from umrgen_cli.admin_webhooks import add_webhook_commands
from umrgen_core.backup import BackupReport, back_up, restore
from umrgen_core.config import Settings, load_settings
from umrgen_core.dated_backups import back_up_dated
from umrgen_core.errors import UmrgenError
from umrgen_core.logs import set_up_logs
from umrgen_core.presence import check_integrity
from umrgen_core.sections import LogSettings
from umrgen_core.sqlite import assert_safe_sqlite

INTERRUPTED = 130
"""Exit status after Ctrl-C, as a shell has it."""


def main() -> int:
    """Entry of the console script. What is logged goes to stderr: stdout is for answers."""
    set_up_logs(LogSettings(level="warning", file_bytes=0), Path(), "umrgen-admin")
    return run_command(sys.argv[1:])


def run_command(arguments: Sequence[str]) -> int:
    """Do what the words say; the exit status."""
    options = make_parser().parse_args(arguments)
    try:
        if "examine" in options:  # doctor: works where the rest cannot, and says why
            return int(options.examine(options))
        assert_safe_sqlite()
        options.command(load_settings(options.config), options)
    except (UmrgenError, OSError) as error:
        print(f"umrgen-admin: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def make_parser() -> argparse.ArgumentParser:
    """Every command with its options."""
    parser = argparse.ArgumentParser(prog="umrgen-admin", description="What the owner of the box does.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--config", type=Path, default=Path("config.toml"), help="default: config.toml")
    one = commands.add_parser("backup", parents=[shared], help="copy the store while it is in use")
    one.add_argument("folder", type=Path, help="a folder that does not exist yet")
    one.add_argument(
        "--keep", type=_positive, metavar="N", help="make a dated one below the folder and keep the newest N of them"
    )
    one.set_defaults(command=_back_up)
    two = commands.add_parser("restore", parents=[shared], help="put a backup back while both daemons are stopped")
    two.add_argument("folder", type=Path, help="what backup made")
    two.set_defaults(command=_restore)
    three = commands.add_parser("check", parents=[shared], help="read the whole database and say whether it is good")
    three.set_defaults(command=_check)
    add_commands(commands, shared)
    add_webhook_commands(commands, shared)
    add_doctor_command(commands, shared)
    add_stats_command(commands, shared)
    add_top_command(commands, shared)
    add_job_commands(commands, shared)
    add_queue_commands(commands, shared)
    add_gc_command(commands, shared)
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("1 or more")
    return number


def _back_up(settings: Settings, options: argparse.Namespace) -> None:
    folder = options.folder.resolve()
    old: list[Path] = []
    if options.keep is None:
        report = back_up(settings.storage, folder)
    else:
        report, old = back_up_dated(settings.storage, folder, options.keep, datetime.now(UTC))
    _report("backed up to", report)
    for path in old:
        print(f"deleted {path}, older than the newest {options.keep}")


def _restore(settings: Settings, options: argparse.Namespace) -> None:
    _report("restored to", restore(settings.storage, options.folder.resolve()))


def _check(settings: Settings, _: argparse.Namespace) -> None:
    check_integrity(settings.storage.database)
    print(f"{settings.storage.database}: good")


def _report(done: str, report: BackupReport) -> None:
    print(f"{done} {report.folder}: the database and {report.files} files ({report.bytes} bytes)")
    for name in report.missing:
        print(f"missing on disk, though a row names it: {name}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
