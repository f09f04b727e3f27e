"""A process frozen inside a write transaction: nobody else can write until a watchdog ends it.

strace stops the process (SIGSTOP) at a write to the WAL, which happens only while it holds the store's lock.
"""

from __future__ import annotations

import fcntl
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from tests.faults.harness import ENDED, Killer, Service, check, read_rows, wait_until
from tests.faults.table import count_damage, record
from umrgen_cli.processes import Daemon

MakeService = Callable[..., Service]
LOCK_TIMEOUT_S = 2.0
BOUND_S = LOCK_TIMEOUT_S + 1.5
"""A refused write is answered within the lock's timeout and what two slow processors need."""


def is_stopped(daemon: Daemon) -> bool:
    status = Path(f"/proc/{daemon.process.pid}/stat").read_text()
    return status.rpartition(")")[2].split()[0] in "tT"


def is_locked(service: Service) -> bool:
    with open(service.data_dir / "store.lock", "rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def freeze_writing(service: Service, daemon: Daemon, tmp_path: Path, when: int) -> None:
    """Stop the process at its `when`-th write to the WAL from now on; it holds the lock and stays stopped."""
    tracer = Killer(daemon.process.pid, "pwrite64", f"signal=SIGSTOP:when={when}", tmp_path / "strace.txt")
    wait_until(lambda: is_stopped(daemon) and is_locked(service), 20)
    tracer.detach()
    assert is_stopped(daemon)
    assert is_locked(service)


def require_refusals(service: Service, seconds: float) -> float:
    """While the holder is frozen writes answer 503 in bounded time, reads go on; the longest wait."""
    longest_s, ends = 0.0, time.monotonic() + seconds
    while time.monotonic() < ends:
        began = time.monotonic()
        answer = service.post()
        longest_s = max(longest_s, time.monotonic() - began)
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        assert int(answer.headers["Retry-After"]) >= 1
        began = time.monotonic()
        assert service.status(service.told.jobs[0])["success"]
        assert service.http.get(f"{service.url}/healthz", timeout=5).status_code == 200
        assert time.monotonic() - began < 1
    assert longest_s < BOUND_S
    return longest_s


def finish(service: Service, case: str, recovery_s: list[float], note: str) -> None:
    service.wait_ended()
    service.wait_swept()
    damage = check(service.data_dir, service.told)
    assert damage.found() == {}
    record(
        case, runs=len(recovery_s), points=len(recovery_s), recovery_s=recovery_s, note=note, **count_damage([damage])
    )


def freeze_daemon(service: Service, tmp_path: Path, points: list[int], seconds: float) -> None:
    recovery_s, longest_s = [], 0.0
    service.start_api()
    for when in points:
        daemon = service.start_infer()
        for seed in range(3):
            service.post(seed=seed)
        freeze_writing(service, daemon, tmp_path, when)
        longest_s = max(longest_s, require_refusals(service, seconds))
        daemon.stop(signal.SIGKILL)
        began = time.monotonic()
        wait_until(lambda: service.post().status_code == 202, 20)
        after = service.start_infer()
        service.wait_ended()
        recovery_s.append(time.monotonic() - began)
        assert after.stop() == 0
    finish(service, "daemon frozen inside a write", recovery_s, f"longest answer 503 {longest_s:.2f} s")


def freeze_api(service: Service, tmp_path: Path, points: list[int], seconds: float) -> None:
    """A second web tier answers 503; the daemon outlasts the freeze and paints what was promised."""
    recovery_s, longest_s = [], 0.0
    daemon = service.start_infer()
    service.start_api()
    service.post()
    for when in points:
        other = service.url
        frozen = service.start_api()
        victim, service.url = service.url, other
        tracer = Killer(frozen.process.pid, "pwrite64", f"signal=SIGSTOP:when={when}", tmp_path / "strace.txt")
        post_until_stopped(service, frozen, victim)
        wait_until(lambda process=frozen: is_stopped(process) and is_locked(service), 20)
        tracer.detach()
        service.url = other
        longest_s = max(longest_s, require_refusals(service, seconds))
        frozen.stop(signal.SIGKILL)
        began = time.monotonic()
        wait_until(lambda: service.post().status_code == 202, 20)
        service.wait_ended()
        recovery_s.append(time.monotonic() - began)
        daemon.require_alive()
    finish(service, "web tier frozen inside a write", recovery_s, f"longest answer 503 {longest_s:.2f} s")
    assert all(row["state"] in ENDED for row in read_rows(service.data_dir, "SELECT state FROM jobs"))


def post_until_stopped(service: Service, frozen: Daemon, url: str) -> None:
    """Posts to the victim; the one that meets the freeze gets no answer, hence no promise.

    That it is stopped says nothing while it still answers: whoever traces it stops it at each system call.
    """
    answered = True
    while answered or not is_stopped(frozen):
        try:
            body = {"prompt": "a star", "width": 64, "height": 64}
            answer = service.http.post(f"{url}/api/v1/generate", json=body, timeout=1)
            service.told.jobs += [answer.json()["job_id"]] if answer.status_code == 202 else []
            answered = True
        except requests.RequestException:
            answered = False


def test_while_a_daemon_is_frozen_inside_a_write_others_answer_503_until_it_is_killed(
    make_service: MakeService, tmp_path: Path
) -> None:
    freeze_daemon(make_service(), tmp_path, [1], 0.5)


def test_while_a_web_tier_is_frozen_inside_a_write_others_answer_503_until_it_is_killed(
    make_service: MakeService, tmp_path: Path
) -> None:
    freeze_api(make_service(), tmp_path, [1], 0.5)


@pytest.mark.faults
@pytest.mark.parametrize("freeze", [freeze_daemon, freeze_api])
def test_wherever_a_writer_is_frozen_the_others_answer_503_until_it_is_killed(
    make_service: MakeService, tmp_path: Path, freeze: Callable[[Service, Path, list[int], float], None]
) -> None:
    freeze(make_service(), tmp_path, [1, 2, 3, 4, 6, 9], 6)


def test_a_writer_that_thaws_in_time_has_lost_nothing(make_service: MakeService, tmp_path: Path) -> None:
    service = make_service()
    service.start_api()
    daemon = service.start_infer()
    service.post(seed=1)
    freeze_writing(service, daemon, tmp_path, 2)
    require_refusals(service, 0.1)
    daemon.process.send_signal(signal.SIGCONT)
    began = time.monotonic()
    wait_until(lambda: service.post().status_code == 202, 20)
    service.wait_ended()
    finish(service, "daemon frozen inside a write, then thawed", [time.monotonic() - began], "")
