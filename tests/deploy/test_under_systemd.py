"""Both units under a real systemd, in a machine of their own. The longer cases: make systemd."""

from __future__ import annotations

import json

from tests.deploy.box import API, DAEMON, Box
from tests.deploy.load import Report

WATCHDOG_S = 4


def test_what_is_killed_or_hangs_is_replaced_while_agents_lose_nothing(box: Box) -> None:
    box.set_watchdog(DAEMON, WATCHDOG_S)
    key = box.set_up()
    assert_doctor_finds_the_units_well(box)
    with box.under_load(key) as load:
        load.let_work()
        box.break_and_mend(API, "KILL")
        load.let_work()
        box.break_and_mend(DAEMON, "KILL")
        load.let_work()
        box.hang(DAEMON, WATCHDOG_S)
    assert_nothing_lost(load.report)


def assert_doctor_finds_the_units_well(box: Box) -> None:
    said = json.loads(box.machine.run("umrgen-admin", "doctor", "--json").stdout)
    found = {one["name"]: one for one in said["findings"]}
    assert said["healthy"]
    for unit in ("umrgen-api.socket", API, DAEMON, "umrgen-backup.timer"):
        assert found[unit]["level"] == "ok"
        assert found[unit]["seen"].startswith("active")
    assert "127.0.0.1:3088, [::1]:3088" in found["address"]["seen"]  # as systemd listens


def assert_nothing_lost(report: Report) -> None:
    assert report.refused == 0
    assert set(report.answers) <= {"200", "202"}
    assert report.promised > 0
    assert report.uploads > 0
    assert report.states == {"completed": report.promised}
