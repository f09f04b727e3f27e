"""Install, upgrade with a migration, a release that does not start, roll back, uninstall: make systemd."""

from __future__ import annotations

import re

import pytest

from tests.deploy.box import API, DAEMON, SOCKET, URL, Box
from tests.deploy.machine import PYTHON
from tests.deploy.test_under_systemd import assert_nothing_lost
from umrgen_core.schema import SCHEMA_VERSION

pytestmark = pytest.mark.systemd
KEPT = "/var/lib/umrgen/before-upgrades"
MIGRATION = '''"""A table that only this test needs."""

from alembic import op

revision = "{new:04d}"
down_revision = "{old:04d}"


def upgrade() -> None:
    op.execute("CREATE TABLE of_a_test_{new} (id INTEGER PRIMARY KEY)")
    op.execute("PRAGMA user_version = {new}")
'''


def raise_schema(box: Box, old: int) -> int:
    """Make the checkout one version newer, with a migration."""
    new = old + 1
    schema = box.checkout / "umrgen_core/schema.py"
    schema.write_text(
        re.sub(r"^SCHEMA_VERSION = \d+", f"SCHEMA_VERSION = {new}", schema.read_text(), flags=re.MULTILINE)
    )
    text = MIGRATION.format(old=old, new=new)
    (box.checkout / f"migrations/versions/{new:04d}_of_a_test.py").write_text(text)
    return new


def find_served(box: Box) -> str:
    return box.machine.run("readlink", "/opt/umrgen/current").stdout.strip()


def read_schema(box: Box) -> int:
    """The schema as any SQLite finds it: a number in the file's head."""
    ask = "PRAGMA user_version"
    code = f"import sqlite3; print(*sqlite3.connect('/var/lib/umrgen/data/umrgen.sqlite3').execute({ask!r}).fetchone())"
    return int(box.machine.run(str(PYTHON), "-c", code).stdout)


def call(box: Box, key: str, path: str, *options: str) -> str:
    curl = ("curl", "-sS", "-H", f"Authorization: Bearer {key}", *options)
    return box.machine.run(*curl, URL + path, timeout_s=40).stdout


def submit(box: Box, key: str) -> str:
    body = '{"prompt": "a red circle", "width": 64, "height": 64, "steps": 1}'
    said = box.machine.run(
        "curl", "-sS", "-H", f"Authorization: Bearer {key}", "--json", body, f"{URL}/api/v1/generate"
    )
    found = re.search(r"ext_[0-9a-f-]{36}", said.stdout)
    assert found, said.stdout
    return found[0]


def ask_state(box: Box, key: str, job_id: str) -> str:
    said = call(box, key, f"/api/v1/status/{job_id}?wait=30&until=done")
    found = re.search(r'"state": ?"(\w+)"|"code": ?"(\w+)"', said)
    assert found, said
    return found[1] or found[2]


def test_an_upgrade_migrates_under_load_and_goes_back_where_the_new_release_fails(box: Box) -> None:
    key = box.set_up()
    assert "is this version already" in box.install()  # again: nothing changes
    box.machine.run("systemctl", "stop", DAEMON)
    waiting = submit(box, key)
    with box.under_load(key) as load:
        new = raise_schema(box, SCHEMA_VERSION)
        box.transcript.note(box.install())
        load.let_work()
    assert_nothing_lost(load.report)
    assert load.report.cut == 0
    assert read_schema(box) == new
    assert find_served(box) == "releases/0.1.0-2"
    assert ask_state(box, key, waiting) == "completed"

    (box.checkout / "umrgen_infer/daemon.py").write_text("raise SystemExit('this release is broken')\n")
    for _ in range(2):
        with box.under_load(key) as load:
            assert "0.1.0-2 serves again" in box.install(check=False)
            load.let_work()
        assert_nothing_lost(load.report)
        assert find_served(box) == "releases/0.1.0-2"
        assert read_schema(box) == new
        raise_schema(box, new)  # the second time it fails over a change of the schema
    assert box.machine.run("find", KEPT, "-path", "*/replaced-1/*").stdout.count("umrgen.sqlite3\n") == 1

    late = submit(box, key)
    assert ask_state(box, key, late) == "completed"
    said = box.make("rollback", check=False)
    assert "nothing was changed" in said
    assert find_served(box) == "releases/0.1.0-2"
    box.transcript.note(box.make("rollback", "--yes"))
    assert find_served(box) == "releases/0.1.0-1"
    assert read_schema(box) == SCHEMA_VERSION
    assert ask_state(box, key, late) == "job_not_found"
    assert ask_state(box, key, submit(box, key)) == "completed"
    assert box.machine.run("find", "/var/lib/umrgen", "-user", "root").stdout == ""


def test_an_upgrade_that_is_interrupted_undoes_itself_and_one_that_is_killed_is_undone_by_a_rollback(box: Box) -> None:
    key = box.set_up()
    early = submit(box, key)
    assert ask_state(box, key, early) == "completed"
    new = raise_schema(box, SCHEMA_VERSION)
    switch = box.checkout / "deploy/install/switch.py"
    whole = switch.read_text()
    step = "    store.migrate(release, places)\n"
    assert step in whole
    switch.write_text(whole.replace(step, f"{step}    import os, signal; os.kill(os.getpid(), signal.SIGINT)\n"))
    said = box.install(check=False)
    assert "interrupted: going back" in said
    assert "0.1.0-1 serves again" in said
    assert (find_served(box), read_schema(box)) == ("releases/0.1.0-1", SCHEMA_VERSION)
    switch.write_text(whole.replace(step, f"{step}    import os, signal; os.kill(os.getpid(), signal.SIGKILL)\n"))
    box.install(check=False)
    switch.write_text(whole)
    assert (find_served(box), read_schema(box)) == ("releases/0.1.0-1", new)
    assert "0.1.0-1 serves again" in box.make("rollback")
    assert (find_served(box), read_schema(box)) == ("releases/0.1.0-1", SCHEMA_VERSION)
    assert ask_state(box, key, early) == "completed"
    assert ask_state(box, key, submit(box, key)) == "completed"


def test_a_backup_of_the_timers_unit_is_put_back_by_the_owners_command(box: Box) -> None:
    key = box.set_up()
    early = submit(box, key)
    assert ask_state(box, key, early) == "completed"
    box.machine.run("systemctl", "start", "umrgen-backup.service")
    backups = box.machine.run("ls", "/var/backups/umrgen").stdout.split()
    late = submit(box, key)
    assert ask_state(box, key, late) == "completed"
    box.machine.run("systemctl", "stop", SOCKET, API, DAEMON)
    box.machine.run("umrgen-admin", "restore", f"/var/backups/umrgen/{backups[-1]}")
    box.machine.run("systemctl", "start", SOCKET, API, DAEMON, timeout_s=60)
    assert ask_state(box, key, early) == "completed"
    assert ask_state(box, key, late) == "job_not_found"
    assert box.machine.run("find", "/var/lib/umrgen", "-user", "root").stdout == ""


def test_a_drained_box_is_upgraded_and_stays_drained(box: Box) -> None:
    key = box.set_up()
    box.machine.run("umrgen-admin", "queue", "drain")
    (box.checkout / "README.md").write_text("a newer one")
    said = box.install()
    assert "0.1.0-2 serves in place of 0.1.0-1" in said
    assert "as before not ready: draining" in said
    box.machine.run("umrgen-admin", "queue", "resume")
    assert ask_state(box, key, submit(box, key)) == "completed"


def test_uninstalling_leaves_settings_and_data_and_nothing_else(box: Box) -> None:
    def find_traces() -> list[str]:
        places = ("/etc", "/opt", "/usr/local/bin", "/var/lib", "/var/cache", "/var/backups", "/run")
        found = box.machine.run("find", *places, "-maxdepth", "3", "-name", "*umrgen*", check=False).stdout
        return sorted(path for path in found.split() if not path.startswith("/run/systemd/generator"))

    before = find_traces()
    box.install()
    box.make("uninstall")
    kept = {"/etc/umrgen", "/var/lib/umrgen", "/var/cache/umrgen", "/var/backups/umrgen"}
    assert set(find_traces()) - set(before) == kept | {"/var/lib/umrgen/data/umrgen.sqlite3"}
    assert box.machine.run("systemctl", "list-units", "--all", "--no-legend", "umrgen*").stdout == ""
    box.make("uninstall")  # again: nothing to do
    box.machine.write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1")  # of this machine alone
    newer = raise_schema(box, SCHEMA_VERSION)
    box.install()
    assert read_schema(box) == newer  # the data that was kept is brought to it
    assert box.machine.read(SOCKET, "Listen") == "127.0.0.1:3088 (Stream)"
    box.make("uninstall", "--purge")
    assert set(find_traces()) - set(before) == {"/var/backups/umrgen"}
