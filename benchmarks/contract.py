"""Any server that speaks the contract, measured from outside: `python -m benchmarks --url URL --key KEY`.

The limits are a bare aiohttp server and bare work on the client's machine, so between two machines the network is
in every figure. The key's agent needs room for what is asked: 200 reads, 5 generates
and an upload in each round, and the files; --scale and --rounds make them fewer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import requests

from benchmarks.client import NATIVE_PX, Client
from benchmarks.figure import Figure, Judged, Plan, Result, take_percentile
from benchmarks.figures.upload import make_jpeg, make_upload, time_redo
from benchmarks.load import Answers, Ask, Load, run_load
from benchmarks.rounds import alternate
from benchmarks.service import running_yardstick

READS = 100
JOBS = 5
UPLOADS = 1
PATIENCE_S = 30


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server is."""

    url: str
    host: str
    port: int
    tls: bool

    def send(self, asks: Sequence[Ask], count: int) -> Answers:
        """One client's requests."""
        return run_load(Load(self.port, [asks], count, self.host, self.tls))


def find_place(url: str) -> Place:
    """The place that a URL means."""
    parts = urlsplit(url)
    tls = parts.scheme == "https"
    if parts.hostname is None:
        raise SystemExit(f"{url!r} names no server; say http://HOST:PORT")
    return Place(url.rstrip("/"), parts.hostname, parts.port or (443 if tls else 80), tls)


def measure_server(url: str, key: str, plan: Plan) -> Result:
    """Reads, a picture, its file and an upload."""
    place = find_place(url)
    client = Client(place.url, key)
    status_url = client.post(width=NATIVE_PX, height=NATIVE_PX)
    image_url = str(client.wait(status_url)["image_url"])
    content = requests.get(place.url + image_url, timeout=PATIENCE_S).content
    with TemporaryDirectory(dir=plan.folder) as folder:
        (Path(folder) / "picture.png").write_bytes(content)
        with running_yardstick(Path(folder)) as bare:
            local = find_place(bare.url)
            figures = [
                _compare(plan, "status_read", "status of a completed job", place, Ask(status_url, key=key), local, "/"),
                _compare(plan, "listing", "a page of 20 jobs", place, Ask("/api/v1/jobs", key=key), local, "/"),
                _compare(plan, "file", "the picture", place, Ask(image_url), local, "/static/picture.png"),
            ]
    # A new connection: the server may have closed the other one meanwhile.
    return Result([*figures, *_measure_jobs(plan, Client(place.url, key)), _measure_upload(plan, place, key)])


def _compare(plan: Plan, name: str, title: str, place: Place, ask: Ask, local: Place, bare_path: str) -> Figure:
    reads = plan.count(READS)
    taken = alternate(
        plan.rounds, {"own": partial(place.send, [ask], reads), "bare": partial(local.send, [Ask(bare_path)], reads)}
    )
    return Figure(
        f"contract.{name}",
        f"{title}: a client's wait p50 ÷ that at a bare aiohttp server",
        "ms",
        [answers.percentile_ms(50) for answers in taken["own"]],
        [answers.percentile_ms(50) for answers in taken["bare"]],
        beside={"p99, ms": median(answers.percentile_ms(99) for answers in taken["own"])},
    )


def _measure_jobs(plan: Plan, client: Client) -> list[Figure]:
    rounds = [[client.run_job(seed) for seed in range(plan.count(JOBS, 1))] for _ in range(plan.rounds)]
    accepted = [median(job.accepted_ms for job in jobs) for jobs in rounds]
    own = [median(job.own_ms for job in jobs) for jobs in rounds]
    posts = [job.accepted_ms for jobs in rounds for job in jobs]
    return [
        Figure(
            "contract.accepted",
            "POST /generate → 202: p50",
            "ms",
            accepted,
            judged=Judged.VALUE,
            beside={"p99, ms": take_percentile(posts, 99)},
        ),
        Figure(
            "contract.own",
            f"POST → completed minus the pipeline stages that the status tells, {NATIVE_PX} px: p50",
            "ms",
            own,
            judged=Judged.VALUE,
        ),
    ]


def _measure_upload(plan: Plan, place: Place, key: str) -> Figure:
    def upload() -> float:
        return place.send([make_upload(key)], UPLOADS).percentile_ms(50)

    taken = alternate(plan.rounds, {"own": upload, "bare": lambda: time_redo(make_jpeg())[0] * 1000})
    return Figure(
        "contract.upload",
        f"upload of a JPEG of {len(make_jpeg()) / 1e6:.1f} MB ÷ bare decoding, scaling and encoding",
        "ms",
        taken["own"],
        taken["bare"],
    )
