"""A process struck at one system call after the other, and the world looked at after each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count, repeat

from tests.faults.harness import ENDED, Damage, Service, check, read_rows, wait_until
from tests.faults.table import count_damage, record
from tests.faults.tracer import EVERY_CALL, Tracer
from umrgen_cli.processes import Daemon

WORKER = "tests.faults.null_infer"
WAIT_S = 30.0
LIVE_JOBS = "SELECT 1 FROM jobs WHERE state IN ('queued', 'running')"
UNHARMED = 2
"""So many runs in a row without a strike: N is past the last point (idle writes move it by a few)."""

SOON = {
    "UMRGEN_JOBS__DEADLINE_S": "1.5",
    "UMRGEN_JOBS__MAX_ATTEMPTS": "10",
    "UMRGEN_API__BODY_TIMEOUT_S": "1",
    "UMRGEN_STORAGE__ORPHAN_MARGIN_S": "0.2",
}
"""An orphan is deleted within 3 s."""

Aim = tuple[int, tuple[str, ...]]
"""The N-th of these calls."""


class Aims:
    """Points to strike, one sweep after the other; a sweep ends when two runs in a row came to no harm.

    A sweep counts one kind of call: how many pages a commit writes varies from run to run, and counted
    together with everything else that would carry the count past the one fsync.
    """

    def __init__(self, *sweeps: Iterable[Aim]) -> None:
        self._sweeps = sweeps
        self._unharmed = 0

    def __iter__(self) -> Iterator[Aim]:
        for sweep in self._sweeps:
            self._unharmed = 0
            for aim in sweep:
                yield aim
                if self._unharmed == UNHARMED:
                    break

    def tell(self, *, struck: bool) -> None:
        self._unharmed = 0 if struck else self._unharmed + 1


def every_aim(calls: tuple[str, ...] = EVERY_CALL) -> Aims:
    return Aims(*(zip(count(1), repeat((call,))) for call in calls))


def some_aims(*aims: tuple[int, str]) -> Aims:
    return Aims([(number, (call,)) for number, call in aims])


@dataclass
class Tally:
    """What one case tried and found."""

    case: str
    struck: list[str] = field(default_factory=list)
    recovery_s: list[float] = field(default_factory=list)
    damages: list[Damage] = field(default_factory=list)

    def look(self, service: Service, *, swept: bool = False) -> None:
        """Check the world from outside; files that wait for the sweep are no damage yet unless `swept`."""
        damage = check(service.data_dir, service.told)
        if not swept:
            damage.files_dangling.clear()
        self.damages.append(damage)

    def blame(self, kind: str, what: str) -> None:
        """Damage that the case itself sees."""
        damage = Damage()
        getattr(damage, kind).append(what)
        self.damages.append(damage)

    def found(self) -> list[dict[str, list[str]]]:
        return [found for damage in self.damages if (found := damage.found())]

    def finish(self, service: Service, note: str = "") -> None:
        """Wait for ends and the sweep, look a last time, write the row; anything broken fails the test."""
        with suppress(AssertionError):
            wait_until(lambda: not read_rows(service.data_dir, LIVE_JOBS), WAIT_S)
        service.wait_swept()
        self.look(service, swept=True)
        record(
            self.case,
            points=len(self.struck),
            recovery_s=self.recovery_s,
            note=note,
            **count_damage(self.damages),
        )
        assert self.found() == []
        assert self.struck, "nothing was struck"


def start_api(service: Service, module: str = "tests.faults.quick_api") -> Daemon:
    daemon = service.start(module)
    service.url = f"http://127.0.0.1:{daemon.wait_for_event('listening', WAIT_S)['port']}"
    return daemon


def start_worker(service: Service, module: str = WORKER) -> Daemon:
    daemon = service.start(module)
    daemon.wait_for_event("model_ready", WAIT_S)
    return daemon


def is_dead(daemon: Daemon) -> bool:
    return daemon.process.poll() is not None


def has_ended(service: Service, job_id: str) -> bool:
    return service.status(job_id).get("state") in ENDED


def has_run(worker: Daemon, job_id: str) -> bool:
    """Whether the worker has done with the job; its row may say so a little earlier."""
    return any(event["event"] == "run_ended" and event["job_id"] == job_id for event in worker.events())


def wait_ended(service: Service, job_id: str) -> None:
    wait_until(lambda: has_ended(service, job_id), WAIT_S)


def kill_worker(
    service: Service,
    tally: Tally,
    aims: Aims,
    submit: Callable[[int], str],
    module: str = WORKER,
    prepare: Callable[[int], object] = lambda _: None,
) -> None:
    """For each aim: `prepare`, trace the worker, `submit` a job, let another worker take over from a killed one."""
    worker = start_worker(service, module)
    for number, (aim, calls) in enumerate(aims):
        prepare(number)
        tracer = Tracer(worker.process.pid, aim, "kill", calls)
        job_id = submit(number)
        wait_until(lambda victim=worker, job=job_id: is_dead(victim) or has_run(victim, job), WAIT_S)
        struck = tracer.close().struck
        aims.tell(struck=struck is not None)
        if struck:
            began = time.monotonic()
            tally.struck.append(struck)
            worker.process.wait(WAIT_S)
            worker = service.start(module)
            wait_ended(service, job_id)
            tally.recovery_s.append(time.monotonic() - began)
            worker.wait_for_event("model_ready", WAIT_S)
        wait_ended(service, job_id)
        tally.look(service)


def kill_api(service: Service, tally: Tally, aims: Aims, ask: Callable[[int], bool]) -> None:
    """For each aim: trace the web tier, `ask` it something, ask again after its restart until it is done."""
    api = start_api(service)
    for number, (aim, calls) in enumerate(aims):
        ask(-1)
        tracer = Tracer(api.process.pid, aim, "kill", calls)
        done = ask(number)
        struck = tracer.close().struck
        aims.tell(struck=struck is not None)
        assert done or struck
        if struck:
            began = time.monotonic()
            tally.struck.append(struck)
            api.process.wait(WAIT_S)
            api = start_api(service)
            wait_until(lambda n=number: ask(n), WAIT_S)
            tally.recovery_s.append(time.monotonic() - began)
        for job_id in service.told.jobs[-1:]:
            wait_ended(service, job_id)
        tally.look(service)


def fail_calls(
    service: Service,
    tally: Tally,
    aims: Aims,
    error: str,
    start: Callable[[Service], Daemon],
    ask: Callable[[int], bool],
) -> None:
    """For each aim: one call of the process fails with `error` while it is asked something; ask until it is done."""
    daemon = start(service)
    for number, (aim, calls) in enumerate(aims):
        ask(-1)
        tracer = Tracer(daemon.process.pid, aim, error, calls)
        began = time.monotonic()
        done = ask(number)
        struck = tracer.close().struck
        aims.tell(struck=struck is not None)
        assert done or struck
        if struck:
            tally.struck.append(struck)
            if is_dead(daemon):
                daemon = start(service)
            wait_until(lambda n=number, was=done: was or ask(n), WAIT_S)
            tally.recovery_s.append(time.monotonic() - began)
        for job_id in service.told.jobs[-1:]:
            wait_ended(service, job_id)
        tally.look(service)
