"""The secrets that sign webhooks: derived when they are needed, kept nowhere.

One master secret lies in a file. An agent's secret is its HMAC-SHA256 over the agent's session and version, so that
the store, its backups and the logs hold nothing that signs.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
from contextlib import suppress
from pathlib import Path

from umrgen_core.errors import ConfigError

GRACE_S = 24 * 3600
"""How long the secret before goes on signing beside a new one."""
MIN_MASTER_BYTES = 32
PREFIX = "whsec_"


def read_master(path: Path) -> bytes:
    """The master secret, made if there is none. Blocks. Raises ConfigError for a file that cannot serve."""
    try:
        if not path.exists():
            _make_master(path)
        master, mode = path.read_bytes().strip(), path.stat().st_mode
    except OSError as error:
        raise ConfigError(f"[auth] secret_file {path}: {error.strerror}") from None
    if mode & 0o007:
        raise ConfigError(f"[auth] secret_file {path}: others may read it; chmod 600 {path}")
    if len(master) < MIN_MASTER_BYTES:
        raise ConfigError(f"[auth] secret_file {path}: holds {len(master)} bytes, {MIN_MASTER_BYTES} are needed")
    return master


def _make_master(path: Path) -> None:
    """Publish 256 random bits under `path`, whole and synced; whoever comes first wins."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    fd = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, secrets.token_hex(32).encode() + b"\n")
        os.fsync(fd)
        with suppress(FileExistsError):
            os.link(partial, path)
    finally:
        os.close(fd)
        partial.unlink()
    folder_fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder_fd)
    finally:
        os.close(folder_fd)


def derive_secret(master: bytes, session_id: str, version: int) -> str:
    """An agent's signing secret in the form of Standard Webhooks, `whsec_` and base64."""
    digest = hmac.digest(master, f"umrgen webhook {session_id} {version}".encode(), hashlib.sha256)
    return PREFIX + base64.b64encode(digest).decode("ascii")


def list_secrets(master: bytes, session_id: str, version: int, rotated_at_us: int | None, now_us: int) -> list[str]:
    """The secrets that sign now: the agent's, and for a day after a change the one before it."""
    current = derive_secret(master, session_id, version)
    if rotated_at_us is None or version == 1 or now_us >= rotated_at_us + GRACE_S * 1_000_000:
        return [current]
    return [current, derive_secret(master, session_id, version - 1)]
