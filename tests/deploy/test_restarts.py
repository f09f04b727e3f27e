"""Restarts, kills and hangs, again and again, while agents work: make systemd."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.deploy.box import API, DAEMON, SHORT_LEASE, Box
from tests.deploy.test_under_systemd import WATCHDOG_S, assert_nothing_lost

pytestmark = pytest.mark.systemd
ROUNDS = 2
HANGING = "/usr/local/lib/hanging"


def test_restarts(box: Box) -> None:
    for unit in (API, DAEMON):
        box.set_watchdog(unit, WATCHDOG_S)
    key = box.set_up()
    with box.under_load(key) as restarts:
        for _ in range(ROUNDS):
            for unit in (API, DAEMON):
                restarts.let_work()
                box.restart(unit)
    assert_nothing_lost(restarts.report)
    assert restarts.report.cut == 0  # whoever was being answered got the answer
    assert restarts.report.retried == 0  # a clean stop costs no attempt
    with box.under_load(key) as failures:
        for _ in range(ROUNDS):
            for unit in (API, DAEMON):
                failures.let_work()
                box.break_and_mend(unit, "KILL")
                failures.let_work()
                box.hang(unit, WATCHDOG_S)
    assert_nothing_lost(failures.report)
    assert failures.report.cut > 0  # by kill -9, while they were being answered; sent again, and then answered


def test_a_pipeline_that_hangs_in_a_step_is_ended_though_the_rest_of_its_process_lives(box: Box) -> None:
    box.set_watchdog(DAEMON, WATCHDOG_S)
    key = box.set_up()
    box.machine.write(f"{HANGING}/sitecustomize.py", Path(__file__).with_name("sitecustomize.py").read_text())
    box.machine.write("/etc/umrgen/infer-0.env", f"{SHORT_LEASE}PYTHONPATH={HANGING}\n")
    box.restart(DAEMON)
    with box.under_load(key) as load:
        load.let_work()
        pid = box.find_pid(DAEMON)
        box.machine.run("touch", "/run/hang")
        box.machine.wait_until(lambda: box.find_pid(DAEMON) not in (pid, 0), 60, "the watchdog to end the daemon")
        box.machine.run("rm", "/run/hang")
        box.wait_replaced(DAEMON, pid)
        load.let_work()
    assert_nothing_lost(load.report)
    assert load.report.retried > 0
    said = box.read_journal(DAEMON)
    assert "Watchdog timeout" in said
    assert "in hanging_step" in said  # the stacks in the journal show where it hung
