"""From one release to another while the socket goes on listening: connections wait, none is refused.

Two locks keep the services waiting that somebody starts meanwhile: the daemons until the store is right, the web tier
until then too, or, where the schema changes, until the daemons are ready: what a release accepts would be lost by going
back over a change of the schema, so it accepts nothing before it is known to work.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from deploy.install import store, units
from deploy.install.places import InstallFailed, Places
from deploy.install.readiness import find_settled, wait_ready
from deploy.install.release import Release, point_to
from deploy.install.shell import say, warn
from deploy.install.signals import undisturbed


@dataclass(frozen=True, slots=True)
class Switch:
    """From one release to another, and the units that are to run afterwards."""

    old: Release
    new: Release
    places: Places
    daemons: list[str]
    others: list[str]
    settled: frozenset[str]
    """Why the service was not ready before, such as a drained queue: no fault of a release."""

    def stop(self) -> None:
        """Stop the services; the socket goes on listening."""
        say("stopping the services; connections wait")
        units.stop(self.daemons, self.others)

    def take_over(self, release: Release) -> None:
        """Make a release the one that the units start."""
        point_to(release, self.places)
        units.install_units(release, self.places)

    def start(self) -> None:
        """Start the web tier, and whatever is not running yet."""
        units.start(units.SOCKET, units.API, *self.daemons, *self.others)

    def open_doors(self) -> None:
        """Start everything, and wait until it serves."""
        self.start()
        wait_ready(self.settled)


def upgrade(old: Release, new: Release, places: Places) -> None:
    """Serve with `new` in the place of `old`. Raises InstallFailed when it does not serve; then `old` does again."""
    state = store.ask(new, places)
    store.require_known(state)
    switch = Switch(old, new, places, *units.list_wanted(), find_settled())
    begun = time.monotonic()
    try:
        with units.holding(places.opt):
            _change_inside(switch, state)
        switch.open_doors()
    except BaseException as error:  # noqa: BLE001 - Ctrl-C and a full disk too: the box must not stay half switched
        with undisturbed():
            warn(f"{_name(error)}\n{units.describe_failure([units.API, *switch.daemons])}")
            _go_back_from_open_doors(switch)
        raise InstallFailed(f"{new.name} does not serve; {old.name} serves again") from None
    say(f"{new.name} serves in place of {old.name}; requests waited {time.monotonic() - begun:.1f} s at most")


def roll_back(current: Release, old: Release, places: Places, *, lose: bool) -> None:
    """Serve with the release before. Raises InstallFailed where what came since would be lost, unless `lose`."""
    copy = _find_needed_copy(old, current, places)
    if copy is not None:
        _admit_loss(store.ask(current, places, copy), copy, lose=lose)
    switch = Switch(old, current, places, *units.list_wanted(), find_settled())
    with undisturbed(), _all_held(places):
        try:
            switch.stop()
            _restore(switch, copy)
        except (InstallFailed, OSError):  # the database is what it was
            switch.start()
            raise
        switch.take_over(old)
    switch.open_doors()
    say(f"{old.name} serves again")


@contextmanager
def _all_held(places: Places) -> Iterator[None]:
    with units.holding(places.opt), units.holding(places.releases):
        yield


def _change_inside(switch: Switch, state: store.StoreState) -> None:
    """Behind closed doors: store, code, units, daemons. Where one fails everything is as it was, and that is raised."""
    try:
        with units.holding(switch.places.releases):
            switch.stop()
            if state.must_migrate:
                change_schema(switch.new, switch.places, state)
            switch.take_over(switch.new)
        if state.must_migrate:
            units.start(*switch.daemons)
    except BaseException:
        with undisturbed(), units.holding(switch.places.releases):
            switch.stop()
            _restore(switch, _find_needed_copy(switch.old, switch.new, switch.places))
            switch.take_over(switch.old)
        raise


def change_schema(release: Release, places: Places, state: store.StoreState) -> None:
    """Bring the closed store to a release's schema, with a copy of how it was."""
    store.require_closed(release, places)
    say(f"the schema goes from {state.store_schema} to {state.release_schema}; a copy of the database is kept")
    store.keep_copy(release, places)
    store.migrate(release, places)


def _go_back_from_open_doors(switch: Switch) -> None:
    """Go back where that loses nothing. What the new release has accepted is promised: it is counted, doors closed."""
    copy = _find_needed_copy(switch.old, switch.new, switch.places)
    with _all_held(switch.places):
        switch.stop()
        came = store.ask(switch.new, switch.places, copy).came if copy else ""
        if not came:
            _restore(switch, copy)
            switch.take_over(switch.old)
    if came:
        with suppress(InstallFailed):  # as unready as it was
            switch.start()
        raise InstallFailed(
            f"{switch.new.name} is not ready, but has accepted {came}, which going back would lose; it stays."
            " To go back all the same: sudo make rollback YES=1"
        )
    switch.open_doors()


def _restore(switch: Switch, copy: Path | None) -> None:
    if copy is None:
        return
    store.require_closed(switch.new, switch.places)
    say(f"the newer database is kept in {store.put_back(switch.new, switch.places, copy)}")


def _find_needed_copy(old: Release, new: Release, places: Places) -> Path | None:
    """The database that `old` needs in place of the one that `new` has changed; None where it has not."""
    schema = store.ask(old, places).release_schema
    if store.ask(new, places).store_schema == schema:
        return None
    copy = store.find_copy(old, new, places)
    if copy is None:
        raise InstallFailed(f"{old.name} needs schema {schema}, of which no database was kept: restore a backup")
    return copy


def _admit_loss(state: store.StoreState, copy: Path, *, lose: bool) -> None:
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(copy.stat().st_mtime))
    lost = f"what came since the upgrade ({state.came or 'no jobs, keys or uploads'}) goes"
    warn(f"The release before has an older schema: the database of {when} takes the place of today's, and {lost}.")
    if not lose:
        raise InstallFailed("nothing was changed; if you mean it: sudo make rollback YES=1")


def _name(error: BaseException) -> str:
    return "interrupted: going back" if isinstance(error, KeyboardInterrupt) else str(error) or type(error).__name__
