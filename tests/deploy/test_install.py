"""What the installer decides, without a machine: settings, releases, refusals."""

from __future__ import annotations

import errno
import os
import pwd
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from deploy.install import box, readiness, release, settings, units
from deploy.install.commands import install_commands
from deploy.install.places import InstallFailed, Places
from deploy.install.release import Release
from deploy.install.settings import compare, make_config
from deploy.install.shell import run, write_file
from tests.conftest import ROOT
from umrgen_core.config import load_settings

SHIPPED = (ROOT / "config.toml").read_text(encoding="utf-8")


@pytest.fixture
def places(tmp_path: Path) -> Places:
    found = Places(tmp_path)
    for folder in (found.releases, found.before, found.bin):
        folder.mkdir(parents=True)
    return found


def make_release(places: Places, number: int, previous: str = "") -> Release:
    made = Release(places.releases / f"0.1.0-{number}", f"digest {number}", previous)
    made.folder.mkdir()
    made.write_note()
    return made


def test_the_settings_of_a_new_box_are_the_shipped_ones_but_for_key_places_and_log_files(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(make_config(SHIPPED, Places()))
    made, shipped = load_settings(path), load_settings(ROOT / "config.toml")
    assert made.auth.development_key == ""
    assert made.secret_path == Path("/etc/umrgen/secret")
    assert made.storage.data_dir == Path("/var/lib/umrgen/data")
    assert made.log.file_bytes == 0
    changed = {"auth", "storage", "log"}
    assert made.model_dump(exclude=changed) == shipped.model_dump(exclude=changed)
    assert path.read_text().count("#") == SHIPPED.count("#")  # its comments are still there


def test_an_upgrade_names_new_settings_with_their_comments_and_unknown_ones() -> None:
    older = SHIPPED.replace("lease_s = 30", "lease_seconds = 30")
    found = compare(SHIPPED, older)
    assert found.new[0] == "[jobs]"
    assert found.new[1].startswith("lease_s = 30 ")
    assert "# a worker" in found.new[1]
    assert found.unknown == ("[jobs] lease_seconds",)
    assert compare(SHIPPED, SHIPPED).new == ()


def test_pruning_keeps_the_last_three_releases_the_one_that_serves_and_the_one_before_it(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release, "run_as_service", lambda *command, cwd: run(*command, cwd=cwd))
    for number in range(1, 8):
        make_release(places, number, previous="0.1.0-1" if number == 2 else "")
    release.point_to(Release(places.releases / "0.1.0-2", ""), places)
    (places.before / "0.1.0-3").mkdir()
    release.prune(places)
    assert [kept.number for kept in release.list_releases(places)] == [1, 2, 5, 6, 7]
    assert not (places.before / "0.1.0-3").exists()


def test_a_release_that_was_not_finished_is_none_and_its_number_is_not_used_again(places: Places) -> None:
    make_release(places, 1)
    (places.releases / "0.1.0-9").mkdir()
    assert [found.number for found in release.list_releases(places)] == [1]
    assert release._next_number(places) == 10


def test_the_digest_of_a_checkout_tells_content_and_rights_but_no_leftovers(tmp_path: Path) -> None:
    folder = tmp_path / "umrgen_core"
    folder.mkdir()
    (folder / "jobs.py").write_text("1")
    first = release.digest_of(tmp_path)
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__/jobs.pyc").write_text("2")
    (tmp_path / "var").mkdir()
    assert release.digest_of(tmp_path) == first
    (folder / "jobs.py").chmod(0o755)
    assert release.digest_of(tmp_path) != first


@pytest.mark.parametrize("text", ["[api\n", "\xff"])
def test_settings_that_cannot_be_read_are_named(places: Places, text: str) -> None:
    places.etc.mkdir(parents=True)
    places.secret.touch()
    places.config.write_bytes(text.encode("latin-1"))
    with pytest.raises(InstallFailed, match=f"{places.config} cannot be read"):
        settings.see_to_settings(ROOT, places)


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret"
    write_file(path, "first", 0o640)
    assert path.stat().st_mode & 0o777 == 0o640
    monkeypatch.setattr(os, "fsync", fill_disk)
    with pytest.raises(OSError, match="no room"):
        write_file(path, "second", 0o640)
    assert path.read_text() == "first"


def fill_disk(_: int) -> None:
    raise OSError(errno.ENOSPC, "no room")


def test_folders_are_as_they_must_be_also_where_they_were_there_before(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    me = pwd.getpwuid(os.getuid()).pw_name
    said: list[str] = []
    monkeypatch.setattr(box, "USER", me)
    monkeypatch.setattr(box, "run", lambda *words: said.append(" ".join(map(str, words))))
    places.etc.mkdir(parents=True)
    box.make_folders(places)
    assert f"chown root:{me} {places.etc}" in said
    assert f"chmod 750 {places.etc}" in said
    assert f"chmod 700 {places.state}" in said


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(503)
        self.end_headers()
        self.wfile.write(b'{"reasons": ["draining"]}')

    def log_message(self, *_: object) -> None: ...


def test_only_what_the_service_itself_says_excuses_a_release_and_no_proxy_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        monkeypatch.setattr(readiness, "find_url", lambda: f"http://127.0.0.1:{server.server_port}")
        assert readiness.find_settled() == {"draining"}
        server.shutdown()
    assert readiness.find_settled() == frozenset()  # nobody listens there any more
    assert readiness.ask_readiness() != frozenset()


def test_a_taken_port_is_refused_by_name() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InstallFailed, match=f"127.0.0.1 port {port} cannot be had"):
            box.require_free_addresses(f"[Socket]\nListenStream=127.0.0.1:{port}\n")
    box.require_free_addresses("[Socket]\nListenStream=/run/umrgen.sock\n")


def test_on_a_box_without_ipv6_the_socket_listens_on_the_other_address_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    unit = (ROOT / "deploy/systemd/umrgen-api.socket").read_text(encoding="utf-8")
    assert units.fit_to_box(unit) == unit or not box.has_ipv6()
    monkeypatch.setattr(box, "has_ipv6", lambda: False)
    listening = [line for line in units.fit_to_box(unit).splitlines() if line.startswith("ListenStream=")]
    assert listening == ["ListenStream=127.0.0.1:3088"]


def test_a_python_that_the_services_may_not_see_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "base_prefix", "/root/python")
    with pytest.raises(InstallFailed, match=r"the services may not see .*apt install python3\.11"):
        box.require_python(with_pip=True)


def test_too_little_room_is_refused_before_anything_is_made(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(box, "PACKAGES_BYTES", 1 << 60)
    with pytest.raises(InstallFailed, match="MiB free"):
        box.require_room(places, with_packages=True)


def test_the_owners_commands_take_the_boxs_settings_unless_others_are_named(places: Places) -> None:
    program = places.current / ".venv/bin/umrgen-admin"
    program.parent.mkdir(parents=True)
    program.write_text('#!/bin/sh\nprintf "%s|" "$@"\n')
    program.chmod(0o755)
    install_commands(places)
    (places.bin / "id").write_text("#!/bin/sh\necho umrgen\n")  # as the services' user, who runs it as it is
    (places.bin / "id").chmod(0o755)

    def ask(*words: str) -> str:
        command = [places.bin / "umrgen-admin", *words]
        environment = {"PATH": f"{places.bin}:{os.environ['PATH']}"}
        return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout

    assert ask("keys", "list") == f"keys|list|--config|{places.config}|"
    assert ask("agents", "create", "two words", "--config=x") == "agents|create|two words|--config=x|"
