"""What the owner types: /usr/local/bin/umrgen-admin and its like."""

from __future__ import annotations

from pathlib import Path

from deploy.install.places import InstallFailed, Places
from deploy.install.shell import write_file

ON_THE_BOX = ("umrgen-admin", "umrgen-infer")
"""They touch the store or the weights: as the service's user, with the box's settings."""
CLIENTS = ("umrgen", "umrgen-mcp")
"""They speak HTTP, as whoever runs them."""

MARK = "# Made by UMRGEN's make install:"
WRAPPER = """\
#!/bin/sh
{mark} {name} as the services' user, so that no file of theirs becomes root's,
# and with the settings that they have.
set -eu
case " $* " in
  *" --config"*) ;;
  *) set -- "$@" --config {config} ;;
esac
set -- env HOME={state} XDG_CACHE_HOME=/var/cache/umrgen HF_HOME=/var/cache/umrgen/huggingface {program} "$@"
[ "$(id -un)" = umrgen ] && exec "$@"
[ "$(id -u)" = 0 ] || {{ echo "{name}: this is the owner's: run it with sudo" >&2; exit 1; }}
umask 077
exec runuser -u umrgen -- "$@"
"""


def require_free_names(places: Places) -> None:
    """Raise InstallFailed where a command of somebody else's has the name of one of ours."""
    for name in (*ON_THE_BOX, *CLIENTS):
        path = places.bin / name
        if (path.is_symlink() or path.exists()) and not _is_ours(path, places):
            raise InstallFailed(f"{path} is not UMRGEN's: move it away")


def install_commands(places: Places) -> None:
    """Put the commands in place."""
    for name in ON_THE_BOX:
        program = places.current / ".venv/bin" / name
        text = WRAPPER.format(mark=MARK, name=name, config=places.config, state=places.state, program=program)
        write_file(places.bin / name, text, 0o755)
    for name in CLIENTS:
        link = places.bin / name
        link.unlink(missing_ok=True)
        link.symlink_to(places.current / ".venv/bin" / name)


def remove_commands(places: Places) -> None:
    """Take the commands away."""
    for name in (*ON_THE_BOX, *CLIENTS):
        path = places.bin / name
        if _is_ours(path, places):
            path.unlink()


def _is_ours(path: Path, places: Places) -> bool:
    if path.is_symlink():
        return path.readlink().is_relative_to(places.opt)
    return path.is_file() and MARK.encode() in path.read_bytes()
