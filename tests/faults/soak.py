"""Mixed load with random kills: `python -m tests.faults.soak --minutes 30 [--seed N] [--plot docs/soak-memory.png]`.

Two web tiers and two daemons share one store. One of each lives from start to end: its memory must stay flat.
The other of each is killed (SIGKILL) every few seconds and started again. The summary is one line of JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import requests

from tests.conftest import picture_bytes
from tests.faults.harness import READY_S, Service, check, read_rows
from tests.faults.soak_plot import draw_curves
from tests.faults.table import record
from umrgen_cli.processes import Daemon, ProcessFailed

ENVIRONMENT = {
    "UMRGEN_JOBS__LEASE_S": "2",
    "UMRGEN_JOBS__HEARTBEAT_S": "0.5",
    "UMRGEN_JOBS__MAX_ATTEMPTS": "20",
    "NULL_PAINTER_STEP_S": "0.1",
}
MODULES = {"api": "umrgen_api", "infer": "tests.faults.null_infer"}
READY_EVENTS = {"api": "listening", "infer": "model_ready"}
SAMPLE_S = 1.0
KILL_EVERY_S = (2.0, 6.0)
WARM_UP_SHARE = 0.25  # caches fill and pools start in the first part; flatness is measured after it


@dataclass
class Load:
    """One agent at a time doing one thing after another, on whichever web tier it meets."""

    service: Service
    rng: random.Random
    pause_s: float
    urls: dict[str, str] = field(default_factory=dict)
    stop: threading.Event = field(default_factory=threading.Event)
    did: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    cancelled: set[str] = field(default_factory=set)
    unanswered: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    keys: dict[str, str] = field(default_factory=dict)

    def run(self) -> None:
        actions = [self.post, self.post, self.post_with_key, self.status, self.fetch, self.cancel, self.upload]
        while not self.stop.wait(self.pause_s):
            self.service.url = self.rng.choice(list(self.urls.values()))
            action = self.rng.choice(actions)
            try:
                action()
            except requests.RequestException:
                self.did["connection broken"] += 1

    def post(self) -> None:
        uploads = list(self.service.told.uploads)
        names = self.rng.sample(uploads, min(len(uploads), self.rng.randrange(3)))
        side = self.rng.choice([64, 96, 200])
        self.note("post", self.service.post(width=side, height=64, reference_images=names))

    def post_with_key(self) -> None:
        """With a key a broken post is sent again until it is answered: it must be one job."""
        new = (f"key-{self.did['post with key']}", {"seed": self.rng.randrange(1000)})
        key, fields = self.unanswered.pop() if self.unanswered else new
        answer = self.service.post(idempotency_key=key, **fields)
        self.note("post with key", answer)
        if answer is None or answer.status_code == 503:
            self.unanswered.append((key, fields))
        elif (
            answer.status_code == 202 and self.keys.setdefault(key, answer.json()["job_id"]) != answer.json()["job_id"]
        ):
            self.wrong.append(f"{key} made two jobs")

    def upload(self) -> None:
        self.note("upload", self.service.upload(picture_bytes(seed=self.rng.randrange(20))))

    def status(self) -> None:
        if self.service.told.jobs:
            job_id = self.rng.choice(self.service.told.jobs[-40:])
            self.did[f"saw {self.service.status(job_id).get('state')}"] += 1

    def fetch(self) -> None:
        if not self.service.told.completed:
            return
        status = self.service.status(self.rng.choice(list(self.service.told.completed)))
        answer = self.service.http.get(self.service.url + status["image_url"], timeout=20)
        self.note("fetch", answer)
        if answer.status_code != 200 or hashlib.sha256(answer.content).hexdigest() != status["sha256"]:
            self.wrong.append(f"fetch of {status['job_id']}: {answer.status_code}")

    def cancel(self) -> None:
        if not self.service.told.jobs:
            return
        job_id = self.rng.choice(self.service.told.jobs[-4:])
        answer = self.service.http.delete(f"{self.service.url}/api/v1/jobs/{job_id}", timeout=20)
        self.note("cancel", answer)
        if answer.status_code == 200 and answer.json()["state"] not in ("completed", "failed"):
            self.cancelled.add(job_id)

    def note(self, what: str, answer: requests.Response | None) -> None:
        self.did[what] += 1
        if answer is None:
            self.did["connection broken"] += 1
        elif answer.status_code not in (200, 202):
            self.did[f"{what}: {answer.status_code}"] += 1
            if answer.status_code != 503:
                self.wrong.append(f"{what}: {answer.status_code} {answer.text[:200]}")


class Soak:
    """The four processes, the killer and the sampler."""

    def __init__(self, service: Service, load: Load, rng: random.Random) -> None:
        self._service = service
        self._load = load
        self._rng = rng
        self._processes: dict[str, Daemon] = {}
        self.samples: dict[str, list[tuple[float, float]]] = {}
        self.recovery_s: list[float] = []
        self.kills: Counter[str] = Counter()
        self.died: list[str] = []

    def begin(self, name: str) -> Daemon:
        daemon = self._service.start(MODULES[name.partition(" ")[0]])
        self._processes[name] = daemon
        return daemon

    def await_ready(self, name: str) -> None:
        event = self._processes[name].wait_for_event(READY_EVENTS[name.partition(" ")[0]], READY_S)
        if "port" in event:
            self._load.urls[name] = f"http://127.0.0.1:{event['port']}"

    def run(self, seconds: float) -> None:
        for name in ("api kept", "api killed", "infer kept", "infer killed"):
            self.begin(name)
            self.await_ready(name)
        thread = threading.Thread(target=self._load.run, name="load")
        thread.start()
        killer = threading.Thread(target=self._kill_again_and_again, name="killer")
        killer.start()
        began = time.monotonic()
        while (at_s := time.monotonic() - began) < seconds:
            for name, daemon in list(self._processes.items()):
                self._sample(name, daemon, at_s)
            time.sleep(SAMPLE_S)
        self._load.stop.set()
        thread.join()
        killer.join()
        self._service.url = self._load.urls["api kept"]

    def _sample(self, name: str, daemon: Daemon, at_s: float) -> None:
        try:
            rss_bytes = psutil.Process(daemon.process.pid).memory_info().rss
        except psutil.Error:
            return
        if rss_bytes:
            self.samples.setdefault(name, []).append((at_s, rss_bytes / 2**20))

    def _kill_again_and_again(self) -> None:
        while not self._load.stop.wait(self._rng.uniform(*KILL_EVERY_S)):
            name = self._rng.choice(["api killed", "infer killed"])
            self._processes[name].process.kill()
            self._processes[name].process.wait()
            self.kills[name] += 1
            began = time.monotonic()
            try:
                self.begin(name)
                self.await_ready(name)
            except ProcessFailed as error:
                self.died.append(str(error))
                continue
            self.recovery_s.append(time.monotonic() - began)

    def memory(self, name: str) -> dict[str, float]:
        """RSS in MiB after the warm-up: medians of its first and last fifth, the peak, and their slope."""
        series = self.samples[name]
        series = series[int(len(series) * WARM_UP_SHARE) :]
        fifth = max(1, len(series) // 5)
        first, last = (statistics.median(mib for _, mib in part) for part in (series[:fifth], series[-fifth:]))
        minutes = max(series[-1][0] - series[0][0], 1.0) / 60 * 0.8
        figures = {"first": first, "last": last, "peak": max(mib for _, mib in series)}
        return {key: round(value, 2) for key, value in {**figures, "mib_per_minute": (last - first) / minutes}.items()}


def soak(data_dir: Path, seconds: float, seed: int, plot: Path | None = None, pause_s: float = 0.1) -> dict[str, Any]:
    """Run it and say what happened; `broken` must be empty."""
    rng = random.Random(seed)
    with ExitStack() as exits:
        service = Service(data_dir, exits, **ENVIRONMENT)
        load = Load(service, random.Random(seed + 1), pause_s)
        course = Soak(service, load, rng)
        course.run(seconds)
        settled_s = service.wait_ended(120)
        service.wait_swept()
        broken = check(data_dir, service.told).found()
        rows = {row["id"]: row for row in read_rows(data_dir, "SELECT id, state, attempts FROM jobs")}
        broken |= {"wrong answers": load.wrong} if load.wrong else {}
        finished_anyway = [one for one in load.cancelled if rows.get(one, {}).get("state") == "completed"]
        broken |= {"did not start": course.died} if course.died else {}
        broken |= {"completed after a cancel": finished_anyway} if finished_anyway else {}
    if plot is not None:
        draw_curves(course.samples, plot)
    return {
        "seconds": round(seconds),
        "seed": seed,
        "kills": dict(course.kills),
        "did": dict(sorted(load.did.items())),
        "jobs": dict(Counter(row["state"] for row in rows.values())),
        "jobs_attempted_again": sum(row["attempts"] > 1 for row in rows.values()),
        "promised": len(service.told.jobs),
        "recovery_s": [round(seconds, 2) for seconds in sorted(course.recovery_s)],
        "settled_s": round(settled_s, 2),
        "memory_mib": {name: course.memory(name) for name in ("api kept", "infer kept")},
        "broken": broken,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="umrgen-soak-") as folder:
        summary = soak(Path(folder) / "data", options.minutes * 60, options.seed, options.plot)
    case = {"points": sum(summary["kills"].values()), "recovery_s": summary["recovery_s"]}
    record("soak", **case, other=len(summary["broken"]), note=json.dumps(summary["memory_mib"]))
    print(json.dumps(summary))
    return int(bool(summary["broken"]))


if __name__ == "__main__":
    sys.exit(main())
