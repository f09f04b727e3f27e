"""What the owner types: /usr/local/bin/umrgen-admin and its like."""

from __future__ import annotations

from deploy.install.places import Places

ON_THE_BOX = ("umrgen-admin", "umrgen-infer")
"""They touch the store or the weights: as the service's user, with the box's settings."""
CLIENTS = ("umrgen", "umrgen-mcp")
"""They speak HTTP, as whoever runs them."""

WRAPPER = """\
#!/bin/sh
# Made by UMRGEN's make install: {name} as the services' user, so that no file of theirs becomes root's,
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


def install_commands(places: Places) -> None:
    """Put the commands in place."""
    for name in ON_THE_BOX:
        program = places.current / ".venv/bin" / name
        text = WRAPPER.format(name=name, config=places.config, state=places.state, program=program)
        new = places.bin / f".{name}.new"
        new.write_text(text, encoding="utf-8")
        new.chmod(0o755)
        new.rename(places.bin / name)
    for name in CLIENTS:
        link = places.bin / name
        link.unlink(missing_ok=True)
        link.symlink_to(places.current / ".venv/bin" / name)


def remove_commands(places: Places) -> None:
    """Take the commands away."""
    for name in (*ON_THE_BOX, *CLIENTS):
        (places.bin / name).unlink(missing_ok=True)
