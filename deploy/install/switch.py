"""From one release to another while the socket goes on listening: connections wait, none is refused.

Two locks keep the services waiting that somebody starts meanwhile: the daemons until the store is right, the web tier
until then too, or, where the schema changes, until the daemons are ready: what a release accepts would be lost by going
back over a change of the schema, so it accepts nothing before it is known to work.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from deploy.install import store, units
from deploy.install.places import InstallFailed, Places
from deploy.install.readiness import ask_readiness, wait_ready
from deploy.install.release import Release, point_to
from deploy.install.shell import say, warn


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

    def open_doors(self) -> None:
        """Start the web tier, and whatever is not running yet."""
        units.start(units.SOCKET, units.API, *self.daemons, *self.others)
        wait_ready(self.settled)


def upgrade(old: Release, new: Release, places: Places) -> None:
    """Serve with `new` in the place of `old`. Raises InstallFailed when it does not serve; then `old` does again."""
    state = store.ask(new, places)
    if state.store_schema > state.release_schema:
        raise InstallFailed(f"the store has schema {state.store_schema}, this version knows {state.release_schema}")
    switch = Switch(old, new, places, *units.list_wanted(), ask_readiness())
    begun = time.monotonic()
    try:
        with units.holding(places.opt):
            _change_inside(switch, state)
        switch.open_doors()
    except InstallFailed as error:
        warn(f"{error}\n{units.describe_failure([units.API, *switch.daemons])}")
        _go_back_from_open_doors(switch)
        raise InstallFailed(f"{new.name} does not serve; {old.name} serves again") from None
    say(f"{new.name} serves in place of {old.name}; requests waited {time.monotonic() - begun:.1f} s at most")


def roll_back(current: Release, old: Release, places: Places, *, lose: bool) -> None:
    """Serve with the release before. Raises InstallFailed where what came since would be lost, unless `lose`."""
    copy = _find_needed_copy(old, current, places)
    if copy is not None:
        _admit_loss(store.ask(current, places, copy), copy, lose=lose)
    switch = Switch(old, current, places, *units.list_wanted(), ask_readiness())
    with units.holding(places.opt), units.holding(places.releases):
        switch.stop()
        _restore(switch, copy)
        switch.take_over(old)
    switch.open_doors()
    say(f"{old.name} serves again")


def _change_inside(switch: Switch, state: store.StoreState) -> None:
    """Behind closed doors: store, code, units, daemons. Where one fails everything is as it was, and that is raised."""
    try:
        with units.holding(switch.places.releases):
            switch.stop()
            if state.must_migrate:
                _migrate(switch, state)
            switch.take_over(switch.new)
        if state.must_migrate:
            units.start(*switch.daemons)
    except InstallFailed:
        with units.holding(switch.places.releases):
            switch.stop()
            _restore(switch, _find_needed_copy(switch.old, switch.new, switch.places))
            switch.take_over(switch.old)
        raise


def _migrate(switch: Switch, state: store.StoreState) -> None:
    store.require_closed(switch.new, switch.places)
    say(f"the schema goes from {state.store_schema} to {state.release_schema}; a copy of the database is kept")
    store.keep_copy(switch.new, switch.places)
    store.migrate(switch.new, switch.places)


def _go_back_from_open_doors(switch: Switch) -> None:
    """Go back where that loses nothing: what the new release has accepted is promised."""
    copy = _find_needed_copy(switch.old, switch.new, switch.places)
    if copy is not None and (jobs := store.ask(switch.new, switch.places, copy).jobs_since):
        raise InstallFailed(
            f"{switch.new.name} is not ready, but has accepted {jobs} jobs, which going back would lose; it stays."
            " To go back all the same: sudo make rollback YES=1"
        )
    with units.holding(switch.places.opt), units.holding(switch.places.releases):
        switch.stop()
        _restore(switch, copy)
        switch.take_over(switch.old)
    switch.open_doors()


def _restore(switch: Switch, copy: Path | None) -> None:
    if copy is None:
        return
    store.require_closed(switch.new, switch.places)
    say(f"the newer database is kept in {store.put_back(switch.new, switch.places)}")


def _find_needed_copy(old: Release, new: Release, places: Places) -> Path | None:
    """The database that `old` needs in place of the one that `new` has changed; None where it has not."""
    schema = store.ask(old, places).release_schema
    if store.ask(new, places).store_schema == schema:
        return None
    copy = store.find_copy(new, places)
    if copy is None:
        raise InstallFailed(f"{old.name} needs schema {schema}, of which no database was kept: restore a backup")
    return copy


def _admit_loss(state: store.StoreState, copy: Path, *, lose: bool) -> None:
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(copy.stat().st_mtime))
    lost = f"{state.jobs_since} jobs submitted and {max(state.keys_since, 0)} keys made since the upgrade"
    warn(f"The release before has an older schema: the database of {when} takes the place of today's, and {lost} go.")
    if not lose:
        raise InstallFailed("nothing was changed; if you mean it: sudo make rollback YES=1")
