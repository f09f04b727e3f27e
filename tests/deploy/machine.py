"""A machine of its own under a real systemd, without a hypervisor: namespaces over a throw-away overlay.

The test drives it from outside: `run` executes a command inside. Nothing written there reaches this box's root.
Its network is a loopback device; cgroups are there, their resource limits are not enforced.
"""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from tests.conftest import ROOT

BOOT = Path(__file__).with_name("boot.sh")
SYSTEMD = Path("/lib/systemd/systemd")
PYTHON = Path("/usr/bin/python3.11")
"""Debian's: the services may not see one below /root or /home."""
NAMESPACES = ("--mount", "--pid", "--fork", "--cgroup", "--ipc", "--uts", "--net", "--mount-proc", "--kill-child")
UNWANTED = (
    "apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer", "fstrim.timer", "dpkg-db-backup.timer",
    "systemd-sysctl.service", "systemd-modules-load.service", "modprobe@.service", "systemd-udevd.service",
    "sys-kernel-debug.mount", "sys-kernel-tracing.mount", "sys-kernel-config.mount", "systemd-remount-fs.service",
    "systemd-timesyncd.service", "getty.target", "console-getty.service",
)  # fmt: skip
"""What Debian starts of itself: it would touch the kernel of the box below, or is of no use here."""
CHECKOUT = "/mnt/checkout"
VENV = "/mnt/venv"
POLL_S = 0.05


class MachineFailed(Exception):
    """It did not come up, or a command inside it failed; the message has what was said."""


def find_obstacle() -> str:
    """Why no machine can be booted here; empty where one can."""
    if os.geteuid() != 0:
        return "a machine under systemd takes root"
    if not SYSTEMD.exists():
        return "systemd is not installed: apt install systemd"
    if not PYTHON.exists():
        return f"{PYTHON} is not there: apt install python3.11-venv"
    tried = subprocess.run(["unshare", *NAMESPACES, "true"], capture_output=True, text=True, check=False)
    return f"no namespaces here: {tried.stderr.strip()}" if tried.returncode else ""


class Machine:
    """Boots when entered, is ended when left. `console` is what systemd says of itself."""

    def __init__(self, checkout: Path = ROOT, console: Path | None = None) -> None:
        self._checkout = checkout
        self._place = Path(tempfile.mkdtemp(prefix="umrgen-machine-"))
        self.console = console or self._place.with_suffix(".console")
        self._init = 0

    def __enter__(self) -> Machine:
        self._terminal, inner = pty.openpty()
        environment = {
            **os.environ,
            "PLACE": str(self._place),
            "CHECKOUT": str(self._checkout),
            "VENV": sys.prefix,
            "CONSOLE": os.ttyname(inner),
            "UNWANTED": " ".join(UNWANTED),
        }
        self._process = subprocess.Popen(
            ["unshare", *NAMESPACES, "bash", str(BOOT)],
            stdin=inner, stdout=inner, stderr=inner, env=environment, start_new_session=True,
        )  # fmt: skip
        os.close(inner)
        self._reader = threading.Thread(target=self._copy_console, daemon=True)
        self._reader.start()
        try:
            self.wait_until(self._is_up, 30, "the machine to boot")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()  # --kill-child takes the first process inside with it, and that all the others
        self._process.wait()
        self._reader.join(5)
        os.close(self._terminal)
        shutil.rmtree(self._place, ignore_errors=True)

    def run(self, *command: str, timeout_s: float = 30, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command inside, as root, and wait for it. Raises MachineFailed when it fails."""
        done = subprocess.run(
            [*self._entering(), *command],
            capture_output=True, text=True, timeout=timeout_s, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if check and done.returncode:
            raise MachineFailed(f"{' '.join(command)}: status {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start a command inside; the caller waits for it."""
        return subprocess.Popen(
            [*self._entering(), *command],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def write(self, path: str, text: str) -> None:
        """Write a file inside."""
        self.run("sh", "-c", 'mkdir -p "$(dirname "$1")" && printf %s "$2" > "$1"', "sh", path, text)

    def read(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.run("systemctl", "show", unit, "--property", name, "--value").stdout.strip()

    def wait_until(self, is_true: Callable[[], bool], timeout_s: float, what: str) -> float:
        """Look until something is so; the seconds it took. Raises MachineFailed when it does not come."""
        begun = time.monotonic()
        while time.monotonic() - begun < timeout_s:
            if self._process.poll() is not None:
                raise MachineFailed(f"the machine ended; its console: {self._read_console()}")
            if is_true():
                return time.monotonic() - begun
            time.sleep(POLL_S)
        raise MachineFailed(f"waited {timeout_s:g} s for {what}; the console: {self._read_console()}")

    def in_its_network(self) -> Sequence[str]:
        """What to put before a command of this box for it to see the machine's network."""
        return ("nsenter", "--target", str(self._init), "--net")

    def _entering(self) -> Sequence[str]:
        clean = ("env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8")
        return ("nsenter", "--target", str(self._init), "--all", "--root", "--wd", *clean)

    def _is_up(self) -> bool:
        """Whether systemd has started what belongs to a plain boot. `degraded` counts: a unit of Debian's may fail."""
        if not self._find_init():
            return False
        asked = self.run("systemctl", "is-system-running", check=False)
        return asked.stdout.strip() in {"running", "degraded"}

    def _find_init(self) -> bool:
        """Find systemd's process as this box numbers it, once it has taken the place of the script."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        if children and Path(f"/proc/{children[0]}/comm").read_text().strip() == "systemd":
            self._init = int(children[0])
        return bool(self._init)

    def _copy_console(self) -> None:
        with open(self.console, "ab", buffering=0) as file:
            while True:
                try:
                    file.write(os.read(self._terminal, 65536))
                except OSError:  # the last process that had it open is gone
                    return

    def _read_console(self) -> str:
        return "\n".join(self.console.read_text(errors="replace").splitlines()[-30:])
