"""From one release to another and back: what is kept where something fails half way. The units are only recorded."""

from __future__ import annotations

import errno
import os
import signal
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.install import __main__ as installer
from deploy.install import release, store, switch, units
from deploy.install.places import InstallFailed, Places
from deploy.install.release import Release
from deploy.install.shell import run
from deploy.install.store import StoreState

OLD_SCHEMA, NEW_SCHEMA = 7, 8


class Bench:
    """Two releases, a store that is a number, and the record of what was done."""

    def __init__(self, places: Places) -> None:
        self.places = places
        self.old = self.make_release(1)
        release.point_to(self.old, places)
        self.new = self.make_release(2, self.old.name)
        self.done: list[str] = []
        self.schema = OLD_SCHEMA
        self.new_schema = NEW_SCHEMA
        self.came: dict[str, int] = {}
        self.fail_at: dict[str, BaseException] = {}

    def make_release(self, number: int, previous: str = "") -> Release:
        made = Release(self.places.releases / f"0.1.0-{number}", f"digest {number}", previous)
        (made.folder / "deploy/systemd").mkdir(parents=True)
        made.write_note()
        return made

    def ask(self, asked: Release, _: Places, since: Path | None = None) -> StoreState:
        if since:
            self.note("count")
        speaks = OLD_SCHEMA if asked == self.old else self.new_schema
        return StoreState(speaks, self.schema, 0, "the database", 1, **(self.came if since else {}))

    def note(self, what: str) -> None:
        self.done.append(what)
        if what in self.fail_at:
            raise self.fail_at.pop(what)

    def migrate(self, *_: object) -> None:
        self.schema = self.new_schema
        self.note("migrate")

    def keep_copy(self, kept_for: Release, _: Places) -> None:
        copy = self.places.before / kept_for.name / store.COPY
        copy.parent.mkdir(parents=True)
        copy.touch()

    def put_back(self, *_: object) -> str:
        self.schema = OLD_SCHEMA
        self.note("put back")
        return ""

    @property
    def served(self) -> str:
        return self.places.current.resolve().name


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    bench = Bench(Places(tmp_path))

    @contextmanager
    def hold(folder: Path) -> Iterator[None]:
        bench.note(f"lock {folder.name}")
        try:
            yield
        finally:
            bench.note(f"free {folder.name}")

    for module, name, fake in (
        (units, "holding", hold),
        (units, "stop", lambda *_: bench.note("stop")),
        (units, "start", lambda *names: bench.note("start all" if units.API in names else "start daemons")),
        (units, "list_wanted", lambda: ([units.FIRST_DAEMON], [])),
        (units, "install_units", lambda new, _: bench.note(f"units {new.number}")),
        (units, "describe_failure", lambda _: ""),
        (switch, "find_settled", frozenset),
        (switch, "wait_ready", lambda _: bench.note("wait")),
        (store, "ask", bench.ask),
        (store, "keep_copy", bench.keep_copy),
        (store, "migrate", bench.migrate),
        (store, "put_back", bench.put_back),
    ):
        monkeypatch.setattr(module, name, fake)
    return bench


@pytest.mark.parametrize("what", ["jobs_since", "keys_since", "uploads_since"])
def test_what_a_half_ready_release_has_accepted_is_counted_once_it_is_closed_and_keeps_it(
    bench: Bench, what: str
) -> None:
    bench.came = {what: 2}
    bench.fail_at["wait"] = InstallFailed("not ready")
    with pytest.raises(InstallFailed, match=f"has accepted 2 {what.removesuffix('_since')}, .* it stays"):
        switch.upgrade(bench.old, bench.new, bench.places)
    after = bench.done[bench.done.index("wait") + 1 :]
    assert after == ["lock umrgen", "lock releases", "stop", "count", "free releases", "free umrgen", "start all"]
    assert (bench.served, bench.schema) == (bench.new.name, NEW_SCHEMA)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "no room"), InstallFailed("no")])
@pytest.mark.parametrize("step", ["migrate", "units 2", "start daemons", "start all"])
def test_wherever_an_upgrade_ends_half_way_the_older_release_serves_again(
    bench: Bench, step: str, error: BaseException
) -> None:
    bench.fail_at[step] = error
    with pytest.raises(InstallFailed, match=r"0\.1\.0-1 serves again"):
        switch.upgrade(bench.old, bench.new, bench.places)
    assert (bench.served, bench.schema) == (bench.old.name, OLD_SCHEMA)
    assert bench.done[-2:] == ["start all", "wait"]
    assert bench.done.count("put back") == 1
    # Before the web tier may start: what waits for the lock finds the release that it belongs to.
    assert step == "start all" or bench.done.index("put back") < bench.done.index("free umrgen")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_on_the_way_back_nobody_is_disturbed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.fail_at["start all"] = InstallFailed("no")

    def put_back(*_: object) -> str:
        os.kill(os.getpid(), signal.SIGINT)
        return bench.put_back()

    monkeypatch.setattr(store, "put_back", put_back)
    with pytest.raises(InstallFailed, match="serves again"):
        switch.upgrade(bench.old, bench.new, bench.places)
    assert bench.schema == OLD_SCHEMA


def test_a_rollback_that_cannot_put_the_database_back_leaves_the_newer_release_serving(bench: Bench) -> None:
    switch.upgrade(bench.old, bench.new, bench.places)
    bench.done.clear()
    bench.fail_at["stop"] = InstallFailed("it does not stop")
    with pytest.raises(InstallFailed, match="it does not stop"):
        switch.roll_back(bench.new, bench.old, bench.places, lose=True)
    assert bench.done[-1] != "stop"
    assert "start all" in bench.done
    assert bench.served == bench.new.name


def break_off(bench: Bench) -> None:
    """What a kill -9 of the installer between migration and switch leaves."""
    bench.keep_copy(bench.new, bench.places)
    bench.schema = NEW_SCHEMA


def test_a_rollback_after_an_upgrade_that_was_killed_brings_the_older_release_and_its_database_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_off(bench)
    monkeypatch.setattr(release, "run_as_service", lambda *command, cwd: run(*command, cwd=cwd))
    installer._roll_back(bench.places, Namespace(yes=False))
    assert (bench.served, bench.schema) == (bench.old.name, OLD_SCHEMA)
    assert not bench.new.folder.exists()


def test_an_upgrade_after_one_that_was_killed_can_still_be_rolled_back(bench: Bench) -> None:
    break_off(bench)
    newer = bench.make_release(3, bench.old.name)
    switch.upgrade(bench.old, newer, bench.places)
    assert store.find_copy(bench.old, newer, bench.places) == bench.places.before / bench.new.name / store.COPY
    switch.roll_back(newer, bench.old, bench.places, lose=True)
    assert (bench.served, bench.schema) == (bench.old.name, OLD_SCHEMA)
