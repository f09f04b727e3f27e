"""What the installer must leave alone: units, commands, checkouts and users that it did not make, databases in use."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from argparse import Namespace
from pathlib import Path

import pytest

from deploy.install import __main__ as installer
from deploy.install import box, commands, readiness, release, store, switch, units
from deploy.install.places import InstallFailed, Places
from deploy.install.release import Release
from deploy.install.shell import run
from tests.conftest import ROOT


@pytest.fixture
def places(tmp_path: Path) -> Places:
    found = Places(tmp_path)
    for folder in (found.releases, found.before, found.bin, found.units):
        folder.mkdir(parents=True)
    return found


@pytest.fixture
def installed(places: Places, monkeypatch: pytest.MonkeyPatch) -> Release:
    made = Release(places.releases / "0.1.0-2", "digest", "")
    made.folder.mkdir()
    made.write_note()
    shutil.copytree(ROOT / "deploy/systemd", made.folder / "deploy/systemd")
    for name in ("run", "read"):
        monkeypatch.setattr(units, name, lambda *_: "")
    monkeypatch.setattr(units, "succeeds", lambda *_: True)
    monkeypatch.setattr(release, "run_as_service", lambda *command, cwd: run(*command, cwd=cwd))
    units.install_units(made, places)
    release.point_to(made, places)
    commands.install_commands(places)
    return made


def test_a_database_that_was_in_use_outlives_its_release(places: Places, installed: Release) -> None:
    kept = places.before / installed.name / "replaced-1/umrgen.sqlite3"
    kept.parent.mkdir(parents=True)
    kept.write_text("newer")
    release.remove(installed, places)
    assert kept.read_text() == "newer"
    assert release._next_number(places) == 3  # another release of that number would mix its copies with these


def test_root_changes_nothing_in_the_folders_of_the_services_user(
    places: Places, installed: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = places.root / "victim"
    (victim / installed.name).mkdir(parents=True)
    places.before.rmdir()
    places.before.symlink_to(victim)
    owner = victim.stat()
    for module in (store, release):
        monkeypatch.setattr(module, "run_as_service", lambda *_, **__: "")
    store.keep_copy(installed, places)
    store.put_back(installed, places, places.before / installed.name / store.COPY)
    release.remove(installed, places)
    assert [path.name for path in victim.rglob("*")] == [installed.name]
    assert (victim.stat().st_uid, victim.stat().st_mtime_ns) == (owner.st_uid, owner.st_mtime_ns)


def test_an_install_after_one_that_was_broken_off_makes_the_units_start_at_boot(
    places: Places, installed: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(units, "run", lambda *words: said.append(" ".join(words)) or "")
    monkeypatch.setattr(units, "succeeds", lambda *_: False)  # nothing is enabled, nothing runs
    monkeypatch.setattr(store, "ask", lambda *_: store.StoreState(8, 7, 0, ""))
    monkeypatch.setattr(switch, "change_schema", lambda *_: said.append("schema"))
    monkeypatch.setattr(readiness, "wait_ready", lambda _: said.append("wait"))
    installer._bring_up(installed, places)
    enabled = f"systemctl enable --quiet {units.SOCKET} {units.API} {units.FIRST_DAEMON} {units.TIMER}"
    assert said == ["schema", "systemctl daemon-reload", enabled, said[3], "wait"]
    assert said[3].startswith(f"systemctl start {units.SOCKET}")


def test_units_of_the_owners_own_stay_at_an_install_and_at_an_uninstall(places: Places, installed: Release) -> None:
    tunnel, ours = places.units / "umrgen-tunnel.service", places.units / "umrgen-older.service"
    for unit in (tunnel, ours):
        unit.write_text("[Service]\n")
    for folder in ("umrgen-tunnel.service.d", "umrgen-infer@1.service.d"):
        (places.units / folder).mkdir()
    older = places.releases / "0.1.0-1/deploy/systemd"
    older.mkdir(parents=True)
    (older / ours.name).touch()
    units.install_units(installed, places)
    assert (tunnel.exists(), ours.exists()) == (True, False)
    units.remove_units(places)
    units.remove_drop_ins(places)
    assert sorted(path.name for path in places.units.iterdir()) == [tunnel.name, f"{tunnel.name}.d"]


def test_an_uninstall_takes_releases_and_commands_and_leaves_what_else_lies_there(
    places: Places, installed: Release
) -> None:
    own = places.opt / "notes.txt"
    own.write_text("mine")
    client = places.bin / "umrgen"
    client.unlink()
    client.write_text("#!/bin/sh\n")
    for _ in range(2):
        installer._uninstall(places, Namespace(purge=False))
    assert list(places.opt.iterdir()) == [own]
    assert list(places.bin.iterdir()) == [client]
    own.unlink()
    installer._uninstall(places, Namespace(purge=False))
    assert not places.opt.exists()


def test_a_checkout_where_the_releases_go_is_refused(places: Places) -> None:
    box.require_own_place(ROOT, places)
    with pytest.raises(InstallFailed, match="keep the checkout elsewhere"):
        box.require_own_place(places.opt / "checkout", places)
    (places.opt / ".git").mkdir()
    with pytest.raises(InstallFailed, match="keep the checkout elsewhere"):
        box.require_own_place(ROOT, places)


def test_a_command_of_somebody_elses_is_refused_by_name(places: Places, installed: Release) -> None:
    commands.require_free_names(places)
    (places.bin / "umrgen-admin").write_text("#!/bin/sh\n")
    with pytest.raises(InstallFailed, match="umrgen-admin is not UMRGEN's"):
        commands.require_free_names(places)


def test_only_a_user_that_the_installer_made_is_removed(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(box, "run", lambda *words: said.append(str(words[0])))
    monkeypatch.setattr(box, "USER", pwd.getpwuid(os.getuid()).pw_name)
    places.backups.mkdir(parents=True)
    box.remove_user(places)
    assert said == []
    monkeypatch.setattr(box, "COMMENT", pwd.getpwuid(os.getuid()).pw_gecos)
    box.remove_user(places)
    assert said == ["chown", "userdel"]


def test_make_hands_on_folders_with_spaces_as_they_are() -> None:
    words = ["make", "--dry-run", "--always-make", "install", "PACKAGES_FROM=/a folder/venv", "PYTHON=/b folder/python"]
    said = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert '"/b folder/python" -B -m deploy.install install --packages-from "/a folder/venv"' in said
