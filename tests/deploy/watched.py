"""Both daemons with their metrics on, and a real Prometheus that scrapes them as the example configuration says."""

from __future__ import annotations

import json
import socket
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import ROOT, picture_bytes
from tests.e2e.conftest import Stack, wait_until

CONFIG = ROOT / "deploy" / "prometheus" / "prometheus.yml"
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yml"
DASHBOARD = ROOT / "deploy" / "grafana" / "umrgen.json"
LISTEN = dict.fromkeys(("UMRGEN_METRICS__API_LISTEN", "UMRGEN_METRICS__INFER_LISTEN"), "127.0.0.1:0")
"""What the environment of a stack must say."""


class Watched:
    """A stack that is ready, and the ports of its metrics by the names of Prometheus's jobs."""

    def __init__(self, stack: Stack) -> None:
        infer, api = stack.start_infer(), stack.start_api()
        stack.wait_ready()
        self.ports: dict[str, int] = {
            "umrgen-api": api.wait_for_event("metrics_listening", 10)["port"],
            "umrgen-infer": infer.wait_for_event("metrics_listening", 10)["port"],
        }
        self.stack = stack

    def work(self, seed: int) -> None:
        """An upload that was not seen before, a job with it, and a request that leads nowhere."""
        uploaded = self.stack.upload(picture_bytes(seed=seed))
        job = self.stack.generate(width=64, height=64, reference_images=[uploaded["filename"]])
        assert self.stack.wait_status(job)["state"] == "completed"
        self.stack.http.get(f"{self.stack.url}/nowhere", timeout=10)

    def read(self, job: str) -> str:
        """What one of the two shows."""
        return fetch(f"http://127.0.0.1:{self.ports[job]}/metrics")


@contextmanager
def run_prometheus(ports: Mapping[str, int], folder: Path, interval: str) -> Iterator[str]:
    """A Prometheus that has scraped both; its address."""
    config = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    config["global"] = {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval}
    config["rule_files"] = [str(ALERTS)]
    for scrape in config["scrape_configs"]:
        scrape["static_configs"] = [{"targets": [f"127.0.0.1:{ports[scrape['job_name']]}"]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = _find_free_port()
    command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    url = f"http://127.0.0.1:{port}"
    with open(folder / "log", "w") as log:
        process = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
        try:
            wait_until(lambda: _has_scraped(url, len(ports)), 30)
            yield url
        finally:
            process.terminate()
            process.wait(20)


def ask(url: str, query: str) -> list[dict[str, Any]]:
    """What Prometheus has as of now. Raises HTTPError for a query that it does not understand."""
    return _get(f"{url}/api/v1/query", query=fill_in(query))


def ask_over_time(url: str, query: str, start: float, end: float, step_s: float) -> list[dict[str, Any]]:
    """What Prometheus has from `start` to `end`, seconds since 1970."""
    return _get(f"{url}/api/v1/query_range", query=fill_in(query), start=start, end=end, step=step_s)


def fill_in(query: str) -> str:
    """The query without what only Grafana knows."""
    return query.replace("$__rate_interval", "30s")


def fetch(url: str) -> str:
    """The body of an answer."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


def _get(url: str, **query: object) -> list[dict[str, Any]]:
    answer = json.loads(fetch(f"{url}?{urllib.parse.urlencode(query)}"))
    assert answer["status"] == "success"
    result = answer["data"]["result"]
    return result if isinstance(result, list) else [result]


def _has_scraped(url: str, most: int) -> bool:
    with suppress(OSError):
        return len(ask(url, "up == 1")) == most
    return False


def _find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
