"""Power cuts: the disk as it would be found, at random moments of a busy run, against what agents were told.

Both processes write to an ext4 in an image file. A cut copies the image while they stand still: what is
only in the page cache, because nobody synced it, is not in the copy.
"""

from __future__ import annotations

import copy
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
import requests

from tests.conftest import picture_bytes
from tests.faults.disks import copy_image, make_image, mounted_image, needs_root, repair_image
from tests.faults.harness import Acknowledged, Damage, Service, check
from tests.faults.points import SOON, WAIT_S, start_api, start_worker
from tests.faults.table import count_damage, record
from tests.faults.tracer import wait_stopped
from umrgen_cli.processes import Daemon

IMAGE_MB = 96
MOST_WAITING = 20
PAUSE_S = (0.2, 1.0)
MUTANTS = ("file_not_synced", "store_not_synced")

Cut = tuple[Path, Acknowledged]
"""A copy of the disk, and what had been promised before it was made."""

pytestmark = needs_root


class Load:
    """Agents who submit, upload and look, each as fast as it is answered."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._ending = threading.Event()
        works = (self._submit, self._submit, self._upload, self._look)
        self._threads = [threading.Thread(target=self._repeat, args=(work,)) for work in works]

    def __enter__(self) -> None:
        for thread in self._threads:
            thread.start()

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def _repeat(self, work: Callable[[Service, int], None]) -> None:
        service = copy.copy(self._service)  # what it is told is told to all; the connection is its own
        service.http = requests.Session()
        service.http.headers.update(self._service.http.headers)
        number = threading.get_ident() % 1_000_003
        while not self._ending.is_set():
            number += 1
            with suppress(requests.RequestException):
                work(service, number)

    def _submit(self, service: Service, number: int) -> None:
        if len(service.told.jobs) - len(service.told.completed) > MOST_WAITING:
            time.sleep(0.02)
            return
        service.post(seed=number, steps=2)

    def _upload(self, service: Service, number: int) -> None:
        service.upload(picture_bytes(seed=number))

    def _look(self, service: Service, _: int) -> None:
        for job_id in [job for job in service.told.jobs if job not in service.told.completed][:5]:
            service.status(job_id)
        time.sleep(0.005)


def snapshot(told: Acknowledged) -> Acknowledged:
    return Acknowledged(list(told.jobs), dict(told.uploads), dict(told.completed))


def cut_power(image: Path, to: Path, service: Service, processes: list[Daemon]) -> Cut:
    promised = snapshot(service.told)
    for process in processes:
        os.kill(process.process.pid, signal.SIGSTOP)
    for process in processes:
        wait_stopped(process.process.pid)
    copy_image(image, to)
    for process in processes:
        os.kill(process.process.pid, signal.SIGCONT)
    return to, promised


def run_and_cut(folder: Path, cuts: int, seed: int, mutant: str | None = None) -> list[Cut]:
    """A busy run of both processes, cut at random moments."""
    image, moments = folder / "disk.img", random.Random(seed)
    make_image(image, IMAGE_MB)
    with ExitStack() as exits:
        disk = exits.enter_context(mounted_image(image, folder / "disk"))
        service = Service(disk / "data", exits, **SOON)
        service._logs = folder / "logs"
        processes = start_both(service, mutant)
        taken = []
        with Load(service):
            for number in range(cuts):
                time.sleep(moments.uniform(*PAUSE_S))
                taken.append(cut_power(image, folder / f"cut-{number}.img", service, processes))
        return taken


def start_both(service: Service, mutant: str | None) -> list[Daemon]:
    if mutant is None:
        return [start_api(service), start_worker(service)]
    module = f"tests.faults.mutants.{mutant}"
    service.environment["MUTANT_OF"] = "api"
    api = start_api(service, module)
    service.environment["MUTANT_OF"] = "infer"
    return [api, start_worker(service, module)]


@contextmanager
def found_disk(cut: Cut) -> Iterator[tuple[Path, Damage]]:
    """The disk after the cut, and what is wrong with it before anybody has started."""
    image, promised = cut
    repair_image(image)
    with mounted_image(image, image.with_suffix("")) as disk:
        yield disk / "data", check(disk / "data", promised, settled=False)
    image.unlink()


def restart(data_dir: Path, promised: Acknowledged, logs: Path) -> tuple[Damage, float, bool]:
    """What is wrong once the service has come back; how long it took; whether it noticed the unclean stop."""
    with ExitStack() as exits:
        service = Service(data_dir, exits, **SOON)
        service._logs = logs
        service.told = promised
        began = time.monotonic()
        api = start_api(service)
        start_worker(service)
        service.wait_ended()
        recovery_s = time.monotonic() - began
        noticed = any(event["event"] == "unclean_stop_found" for event in api.events())
        service.wait_swept(WAIT_S)
        return check(data_dir, service.told), recovery_s, noticed


def survive_cuts(folder: Path, case: str, cuts: int, seed: int) -> None:
    damages, recovery_s, noticed, promises = [], [], 0, 0
    for cut in run_and_cut(folder, cuts, seed):
        with found_disk(cut) as (data_dir, damage):
            damages.append(damage)
            promises += len(cut[1].jobs) + len(cut[1].uploads)
            settled, seconds, seen = restart(data_dir, cut[1], cut[0].with_suffix(".logs"))
            damages.append(settled)
            recovery_s.append(seconds)
            noticed += seen
    note = f"{promises} promises looked up, unclean stop noticed {noticed} of {cuts}, seed {seed}"
    record(case, points=cuts, recovery_s=recovery_s, note=note, **count_damage(damages))
    assert [found for damage in damages if (found := damage.found())] == []
    assert noticed == cuts
    assert promises > 0


def test_a_power_cut_takes_nothing_that_was_promised(tmp_path: Path) -> None:
    survive_cuts(tmp_path, "power cuts, some", cuts=2, seed=1)


@pytest.mark.faults
@pytest.mark.timeout(1200)
def test_no_power_cut_takes_anything_that_was_promised(tmp_path: Path) -> None:
    seed = int(os.environ.get("FAULTS_SEED", "2026"))
    survive_cuts(tmp_path, "power cuts", cuts=20, seed=seed)


@pytest.mark.faults
@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_process_that_does_not_sync_is_seen_to_lose(tmp_path: Path, mutant: str) -> None:
    damages = []
    for cut in run_and_cut(tmp_path, 6, 7, mutant):
        with found_disk(cut) as (_, damage):
            damages.append(damage)
    lossy = [damage.found() for damage in damages if damage.found()]
    record(f"mutant caught: {mutant}", points=len(damages), note=f"caught: loss in {len(lossy)} of {len(damages)} cuts")
    assert lossy, "the mutant went unnoticed"
