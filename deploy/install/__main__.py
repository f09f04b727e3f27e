"""`python -m deploy.install install | rollback | uninstall`: what make runs."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from deploy.install import box, readiness, release, settings, store, switch, units
from deploy.install.commands import install_commands, remove_commands, require_free_names
from deploy.install.places import InstallFailed, Places
from deploy.install.shell import run_as_service, say, warn
from deploy.install.signals import interrupt_on_all, undisturbed

CHECKOUT = Path(__file__).resolve().parents[2]
FIRST_AGENT = "owner"


def main() -> int:
    """Entry of the make targets."""
    options = _parse()
    interrupt_on_all()
    try:
        box.require_root()
        box.require_systemd()
        options.command(Places(), options)
    except (InstallFailed, OSError) as error:
        warn(f"{options.name}: {error}")
        return 1
    except KeyboardInterrupt:
        warn(f"{options.name}: interrupted")
        return 130
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="install", description="UMRGEN on this box, under systemd.")
    commands = parser.add_subparsers(required=True, dest="name", metavar="COMMAND")
    one = commands.add_parser("install", help="install, or upgrade what is installed; again and again does no harm")
    one.add_argument("--packages-from", type=Path, metavar="VENV", help="use the packages of this environment")
    one.set_defaults(command=_install)
    two = commands.add_parser("rollback", help="go back to the release before")
    two.add_argument("--yes", action="store_true", help="also where jobs and keys made since are lost")
    two.set_defaults(command=_roll_back)
    three = commands.add_parser("uninstall", help="remove everything but settings, data and backups")
    three.add_argument("--purge", action="store_true", help="also settings and data")
    three.set_defaults(command=_uninstall)
    return parser.parse_args()


def _install(places: Places, options: argparse.Namespace) -> None:
    old = release.find_current(places)
    box.require_own_place(CHECKOUT, places)
    require_free_names(places)
    box.require_programs()
    box.require_python(with_pip=options.packages_from is None)
    box.require_room(places, with_packages=options.packages_from is None)
    if old is None:
        box.require_free_addresses((CHECKOUT / "deploy/systemd" / units.SOCKET).read_text(encoding="utf-8"))
    box.make_user(places)
    box.make_folders(places)
    settings.see_to_settings(CHECKOUT, places)
    new = _find_same(old) or release.build_release(CHECKOUT, places, options.packages_from)
    try:
        store.require_known(store.ask(new, places))  # it says now, while the old one serves, what it does not take
        if old is None or old.name == new.name or not units.is_wanted(units.SOCKET):
            _bring_up(new, places)
        else:
            switch.upgrade(old, new, places)
    except BaseException:
        with undisturbed():
            if release.find_current(places) in (None, old) and new != old:
                release.remove(new, places)
        raise
    install_commands(places)
    release.prune(places)
    _say_how_to_go_on(new, places)


def _find_same(old: release.Release | None) -> release.Release | None:
    if old is None or old.digest != release.digest_of(CHECKOUT):
        return None
    say(f"{old.name} is this version already")
    return old


def _bring_up(new: release.Release, places: Places) -> None:
    first = not units.is_wanted(units.SOCKET)  # also where a first install was broken off
    state = store.ask(new, places)
    if state.must_migrate:  # left by an uninstall, or restored: no service takes it
        switch.change_schema(new, places, state)
    release.point_to(new, places)
    units.install_units(new, places)
    if first:
        units.enable_first()
    daemons, others = units.list_wanted()
    timers = [units.TIMER] if units.is_wanted(units.TIMER) else []
    settled = frozenset() if first else readiness.find_settled()
    try:
        units.start(units.SOCKET, units.API, *daemons, *others, *timers)
        readiness.wait_ready(settled)
    except InstallFailed as error:
        raise InstallFailed(f"{error}\n{units.describe_failure([units.API, *daemons])}") from None


def _say_how_to_go_on(new: release.Release, places: Places) -> None:
    url = readiness.find_url()
    missing = ", ".join(sorted(readiness.ask_readiness()))
    say(f"UMRGEN {new.name} {f'serves on {url}, as before not ready: {missing}' if missing else f'is ready on {url}'}")
    units.say_states(units.list_wanted()[0])
    if store.ask(new, places).keys:
        return
    program = places.current / ".venv/bin/umrgen-admin"
    created = run_as_service(program, "agents", "create", FIRST_AGENT, "--config", places.config, cwd=places.opt)
    say(f"\nThe first key. It is shown only now:\n{created}")
    key = next(word for word in created.split() if word.startswith("umr_"))
    curl = f"curl -H 'Authorization: Bearer {key}' --json '{{\"prompt\": \"a red circle\"}}'"
    say(f"Try it:\n  {curl} {url}/api/v1/generate")
    say(f"or, to get the picture: UMRGEN_URL={url} UMRGEN_API_KEY={key} umrgen generate 'a red circle'")


def _roll_back(places: Places, options: argparse.Namespace) -> None:
    current = release.find_current(places)
    if current is None:
        raise InstallFailed("nothing is installed")
    newer = release.find_broken_off(places)
    if newer is not None and (state := store.ask(current, places)).store_schema > state.release_schema:
        say(f"the upgrade to {newer.name} was broken off after it had changed the schema")
        switch.roll_back(newer, current, places, lose=True)  # nobody served it, so nothing has come since
        release.remove(newer, places)
        return
    old = release.read_release(places.releases / current.previous) if current.previous else None
    if old is None:
        raise InstallFailed(f"there is no release before {current.name} any more")
    switch.roll_back(current, old, places, lose=options.yes)


def _uninstall(places: Places, options: argparse.Namespace) -> None:
    units.remove_units(places)
    remove_commands(places)
    shutil.rmtree(places.releases, ignore_errors=True)
    for link in (places.current, places.current.with_name("current.new")):
        link.unlink(missing_ok=True)
    if places.opt.exists() and not any(places.opt.iterdir()):
        places.opt.rmdir()
    if options.purge:
        for folder in (places.etc, places.state, places.cache):
            shutil.rmtree(folder, ignore_errors=True)
        units.remove_drop_ins(places)
        box.remove_user(places)
        say(f"removed UMRGEN, its settings and its data; backups stay in {places.backups}")
        return
    kept = [str(path) for path in (places.etc, places.state, places.cache, places.backups) if path.exists()]
    say(f"removed UMRGEN; kept: {', '.join(kept) or 'nothing'} (PURGE=1 removes settings and data)")


if __name__ == "__main__":
    sys.exit(main())
