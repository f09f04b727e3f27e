"""`python -m tests.deploy.draw_dashboard`: the dashboard as docs/dashboard.png, over two minutes of a small load.

Both daemons run for it. The queries are the dashboard's own, the answers those of a real Prometheus; only the drawing
is ours.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.conftest import ROOT, make_settings, picture_bytes
from tests.deploy.panels import Curve, draw_panels, fill_legend
from tests.deploy.watched import DASHBOARD, LISTEN, Watched, ask_over_time, run_prometheus
from tests.e2e.conftest import Stack
from umrgen_core.backup import back_up

LOAD_S = 120.0
STEP_S = 2.0
TARGET = ROOT / "docs" / "dashboard.png"
COLOURS_KEPT = 64
SETTINGS = {
    "UMRGEN_LIMITS__CONCURRENT_JOBS": "200",
    "UMRGEN_LIMITS__RATE_PER_MINUTE": "100000",
    "UMRGEN_JOBS__QUEUE_TTL_S": "20",
    "UMRGEN_WEBHOOKS__ALLOW_PRIVATE": "true",
}
"""Some jobs wait in vain, so that there is something in every panel."""
NOBODY = "https://127.0.0.1:9/hook"


def main() -> int:
    """Make the picture."""
    with tempfile.TemporaryDirectory(prefix="umrgen-dashboard-") as name, ExitStack() as exits:
        folder = Path(name)
        back_up(make_settings(folder / "data").storage, folder / "backup")
        watched = Watched(Stack(folder / "data", exits, **LISTEN, **SETTINGS))
        url = exits.enter_context(run_prometheus(watched.ports, folder, f"{STEP_S:g}s"))
        began = time.time()
        put_load(watched.stack, LOAD_S)
        curves = collect(url, began, time.time())
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    draw_panels(panels, curves).quantize(COLOURS_KEPT).save(TARGET, optimize=True)
    print(f"{TARGET.relative_to(ROOT)}: {TARGET.stat().st_size} bytes")
    return 0


def put_load(stack: Stack, seconds: float) -> None:
    """What agents do, good and bad, in waves."""
    draw, end = random.Random(1), time.monotonic() + seconds
    uploaded = [stack.upload(picture_bytes(seed=seed))["filename"] for seed in range(4)]
    while (left := end - time.monotonic()) > 0:
        for _ in range(draw.randint(1, 9) if int(left) % 40 < 12 else 1):
            side = draw.choice([64, 128, 256])
            body = {"prompt": draw.choice(["a red circle", "a blue star"]), "width": side, "height": side}
            body |= {"callback_url": NOBODY} if draw.random() < 0.2 else {}
            stack.http.post(
                f"{stack.url}/api/v1/generate",
                json={**body, "reference_images": draw.sample(uploaded, draw.randint(0, 1))},
                timeout=30,
            )
        misbehave(stack, draw)
        jobs = stack.http.get(f"{stack.url}/api/v1/jobs?limit=20", timeout=30).json()["jobs"]
        for job in jobs:
            stack.status(job["job_id"])
        if draw.random() < 0.2:
            stack.http.delete(f"{stack.url}/api/v1/jobs/{jobs[0]['job_id']}", timeout=30)
        stack.http.get(f"{stack.url}/api/v1/status/{jobs[0]['job_id']}?wait=1", timeout=30)


def misbehave(stack: Stack, draw: random.Random) -> None:
    """Now and then a request that is refused."""
    chance = draw.random()
    if chance < 0.2:
        stack.http.get(f"{stack.url}/api/v1/status/ext_nowhere", timeout=30)
    elif chance < 0.4:
        stack.http.post(f"{stack.url}/api/v1/generate", json={"prompt": ""}, timeout=30)
    elif chance < 0.6:
        content = draw.choice([b"no picture", picture_bytes(8, 8), picture_bytes(seed=draw.randint(10, 9999))])
        stack.http.post(f"{stack.url}/api/v1/upload-reference", files={"file": content}, timeout=30)


def collect(url: str, begin: float, end: float) -> Mapping[int, list[Curve]]:
    """The answers to the queries of every panel."""
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    return {panel["id"]: _ask_panel(url, panel, begin, end) for panel in panels if "targets" in panel}


def _ask_panel(url: str, panel: Mapping[str, Any], begin: float, end: float) -> list[Curve]:
    curves = []
    for target in panel["targets"]:
        for series in ask_over_time(url, target["expr"], begin, end, STEP_S):
            points = [(at, float(value)) for at, value in series["values"] if value not in ("NaN", "+Inf")]
            if points:
                curves.append(Curve(fill_legend(target["legendFormat"], series["metric"]), points))
    return curves


if __name__ == "__main__":
    sys.exit(main())
