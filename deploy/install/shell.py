"""Running the box's commands, and telling the owner what happens."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from deploy.install.places import USER, InstallFailed


def say(line: str) -> None:
    """One line for the owner, at once; a terminal that is gone stops nothing half way."""
    with suppress(OSError):
        print(line, flush=True)


def warn(line: str) -> None:
    """A line that the owner should not miss."""
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Run a command to its end; what it printed. Raises InstallFailed with what it said."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=cwd, stdin=subprocess.DEVNULL)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-12:]
        raise InstallFailed("\n".join([f"'{' '.join(words)}' failed with status {done.returncode}:", *said]))
    return done.stdout


def read(*command: str) -> str:
    """What a command printed, whatever its status."""
    return subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL).stdout


def run_as_service(*command: str | Path, cwd: Path) -> str:
    """Run a command as the service's user, so that nothing in the data folder becomes root's."""
    return run("runuser", "-u", USER, "--", *command, cwd=cwd)


def succeeds(*command: str) -> bool:
    """Whether a command ends with status 0."""
    return subprocess.run(command, capture_output=True, check=False, stdin=subprocess.DEVNULL).returncode == 0


def write_file(path: Path, text: str, mode: int, group: str = "root") -> None:
    """Write a file of root's that is there whole or not at all, also after a power cut."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
        if group != "root":
            shutil.chown(new, "root", group)
        new.chmod(mode)
        file.flush()
        os.fsync(file.fileno())
    new.rename(path)
