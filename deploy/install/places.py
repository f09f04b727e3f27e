"""Where things go on the box."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

USER = "umrgen"


class InstallFailed(Exception):
    """It cannot be done; the message is one sentence for the owner, with the way out."""


@dataclass(frozen=True, slots=True)
class Places:
    """Every path, below `root` (`/`, but for tests)."""

    root: Path = Path("/")

    @property
    def opt(self) -> Path:
        """The code. Whoever holds this folder's lock keeps the web tier waiting."""
        return self.root / "opt/umrgen"

    @property
    def releases(self) -> Path:
        """One folder for each release, code and packages. Its lock keeps the daemons waiting."""
        return self.opt / "releases"

    @property
    def current(self) -> Path:
        """A symlink to the release that serves; units and commands go through it."""
        return self.opt / "current"

    @property
    def etc(self) -> Path:
        """The owner's: written once, never overwritten."""
        return self.root / "etc/umrgen"

    @property
    def config(self) -> Path:
        """The settings of both processes."""
        return self.etc / "config.toml"

    @property
    def secret(self) -> Path:
        """The master secret of webhooks; systemd hands it to the services as a credential."""
        return self.etc / "secret"

    @property
    def state(self) -> Path:
        """Everything that the service writes."""
        return self.root / "var/lib/umrgen"

    @property
    def data(self) -> Path:
        """[storage] data_dir, inside `state`: a restore renames it, and only there may the service's user do that."""
        return self.state / "data"

    @property
    def before(self) -> Path:
        """Databases as they were before upgrades that changed the schema, in a folder for each release."""
        return self.state / "before-upgrades"

    @property
    def backups(self) -> Path:
        """Where the timer's backups go."""
        return self.root / "var/backups/umrgen"

    @property
    def cache(self) -> Path:
        """Weights and compiled kernels."""
        return self.root / "var/cache/umrgen"

    @property
    def units(self) -> Path:
        """Where the owner's units belong."""
        return self.root / "etc/systemd/system"

    @property
    def timer_stamp(self) -> Path:
        """Where systemd remembers the last backup."""
        return self.root / "var/lib/systemd/timers/stamp-umrgen-backup.timer"

    @property
    def bin(self) -> Path:
        """Where the commands go."""
        return self.root / "usr/local/bin"
