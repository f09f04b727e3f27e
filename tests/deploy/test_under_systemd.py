"""Both units under a real systemd, in a machine of their own. The longer cases: make systemd."""

from __future__ import annotations

from tests.deploy.box import API, DAEMON, Box
from tests.deploy.load import Report

WATCHDOG_S = 4


def test_what_is_killed_or_hangs_is_replaced_while_agents_lose_nothing(box: Box) -> None:
    box.set_watchdog(DAEMON, WATCHDOG_S)
    key = box.set_up()
    with box.under_load(key) as load:
        load.let_work()
        box.break_and_mend(API, "KILL")
        load.let_work()
        box.break_and_mend(DAEMON, "KILL")
        load.let_work()
        box.hang(DAEMON, WATCHDOG_S)
    assert_nothing_lost(load.report)


def assert_nothing_lost(report: Report) -> None:
    assert report.refused == 0
    assert set(report.answers) <= {"200", "202"}
    assert report.promised > 0
    assert report.uploads > 0
    assert report.states == {"completed": report.promised}
