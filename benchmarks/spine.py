"""What the service adds to the bare pipeline: `python -m benchmarks.spine`.

Starts both daemons, then alternates a call of the bare pipeline in this process with a job through HTTP
(native size, one at a time, status polled every 2 ms), and measures start time and memory of the web tier.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import psutil
import requests

from umrgen_cli.processes import Daemon, running, start_daemon
from umrgen_core.config import load_settings
from umrgen_infer.painter import Commission
from umrgen_infer.pipelines.load import load_painter

ROOT = Path(__file__).parents[1]
PROMPT = "a red circle on a white background"
POLL_S = 0.002
READS = 2000


class Service:
    """Both daemons on a free port."""

    def __init__(self, data_dir: Path, exits: ExitStack) -> None:
        self._environment = {
            "UMRGEN_STORAGE__DATA_DIR": str(data_dir),
            "UMRGEN_STORAGE__BALLAST_BYTES": "0",
            "UMRGEN_API__PORT": "0",
            "UMRGEN_LIMITS__RATE_PER_MINUTE": "1000000",
            "UMRGEN_LIMITS__READS_PER_MINUTE": "1000000",
        }
        self._data_dir = data_dir
        self._exits = exits
        self.http = requests.Session()
        self.http.headers["Authorization"] = f"Bearer {load_settings(ROOT / 'config.toml').auth.development_key}"
        self.url = ""

    def start(self, module: str) -> Daemon:
        """Start one of the daemons."""
        daemon = start_daemon(module, ROOT / "config.toml", self._data_dir / f"{module}.out", self._environment)
        self._exits.enter_context(running(daemon))
        return daemon

    def start_api(self) -> tuple[Daemon, float]:
        """The web tier and the seconds from exec to its first answer."""
        began = time.perf_counter()
        daemon = self.start("umrgen_api")
        self.url = f"http://127.0.0.1:{daemon.wait_for_event('listening', 60)['port']}"
        requests.get(f"{self.url}/healthz", timeout=10).raise_for_status()
        return daemon, time.perf_counter() - began

    def run_job(self, seed: int) -> tuple[float, dict[str, float]]:
        """Seconds from POST to a status that says completed, and the job's own timings."""
        body = {"prompt": PROMPT, "width": 64, "height": 64, "seed": seed}
        began = time.perf_counter()
        accepted = self.http.post(f"{self.url}/api/v1/generate", json=body, timeout=30).json()
        while (status := self.http.get(self.url + accepted["status_url"], timeout=30).json())["state"] != "completed":
            if status["state"] == "failed":
                raise SystemExit(f"the job failed: {status['error']}")
            time.sleep(POLL_S)
        return time.perf_counter() - began, status["timings"]


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=40, help="jobs, each beside a call of the bare pipeline")
    parser.add_argument("--starts", type=int, default=5)
    options = parser.parse_args()
    with ExitStack() as exits, tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(Service(Path(folder), exits), options.pairs, options.starts), indent=2))


def measure(service: Service, pairs: int, starts: int) -> dict[str, object]:
    """Every figure. Seconds unless a name says otherwise."""
    started = []
    for _ in range(starts + 1):
        api, seconds = service.start_api()
        started.append(seconds)
        api.stop()
    api, _ = service.start_api()
    rss_at_start = psutil.Process(api.process.pid).memory_info().rss
    service.start("umrgen_infer").wait_for_event("model_ready", 120)
    settings = load_settings(ROOT / "config.toml")
    painter = load_painter("tiny-klein", settings.models["tiny-klein"], settings.infer.threads)
    bare, added, own = [], [], []
    for seed in range(pairs + 1):
        began = time.perf_counter()
        painter.paint(Commission(PROMPT, "", 64, 64, 4, seed, ()), lambda _: None)
        bare.append(time.perf_counter() - began)
        total, timings = service.run_job(seed)
        pipeline = timings["encode"] + timings["denoise"] + timings["decode"]
        added.append(total - bare[-1])
        own.append(total - pipeline)
    for _ in range(READS):
        service.http.get(f"{service.url}/api/v1/references", timeout=30)
    return {
        "web_tier_start_s": spread(started[1:]),
        "web_tier_rss_mb_at_start": round(rss_at_start / 1e6, 1),
        f"web_tier_rss_mb_after_{READS}_reads": round(psutil.Process(api.process.pid).memory_info().rss / 1e6, 1),
        "bare_pipeline_s": spread(bare[1:]),
        "post_to_completed_minus_bare_pipeline_s": spread(added[1:]),
        "post_to_completed_minus_its_own_pipeline_stages_s": spread(own[1:]),
    }


def spread(values: list[float]) -> dict[str, float]:
    """Median with quartiles; the first value of each series was dropped as warm-up."""
    low, middle, high = statistics.quantiles(values, n=4)
    return {"p25": round(low, 4), "p50": round(middle, 4), "p75": round(high, 4), "runs": len(values)}


if __name__ == "__main__":
    main()
