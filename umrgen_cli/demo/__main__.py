"""Start both daemons, upload the picture beside this file, generate with it, save the result, stop."""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from umrgen_cli.processes import Daemon, ProcessFailed, running, start_daemon
from umrgen_core.config import load_settings
from umrgen_core.errors import ConfigError

REFERENCE = Path(__file__).parent / "reference.jpg"
PROMPT = "a circle in the colour of the reference on a white background"
READY_TIMEOUT_S = 180.0
JOB_TIMEOUT_S = 180.0
POLL_S = 0.2


class DemoFailed(Exception):
    """Why the demo could not end well."""


class Stopwatch:
    """Seconds of each stage, in order."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, float]] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what happens inside."""
        began = time.perf_counter()
        yield
        self.stages.append((name, time.perf_counter() - began))


async def main(config: Path, data_dir: Path, console: Console) -> None:
    """Run the demo. Raises DemoFailed or ProcessFailed."""
    watch = Stopwatch()
    environment = {
        "UMRGEN_STORAGE__DATA_DIR": str(data_dir),
        "UMRGEN_API__HOST": "127.0.0.1",
        "UMRGEN_API__PORT": "0",
        "UMRGEN_API__PUBLIC_URL": "",
        "UMRGEN_INFER__MODELS": '["tiny-klein"]',
    }
    with watch.stage("migrate the database"):
        _migrate(config, environment)
    api = start_daemon("umrgen_api", config, data_dir / "demo-api.log", environment)
    infer = start_daemon("umrgen_infer", config, data_dir / "demo-infer.log", environment)
    with running(api, infer):
        with watch.stage("start the web tier"):
            listening = await asyncio.to_thread(api.wait_for_event, "listening", READY_TIMEOUT_S)
        key = load_settings(config).auth.development_key
        async with aiohttp.ClientSession(
            f"http://127.0.0.1:{listening['port']}", headers={"Authorization": f"Bearer {key}"}
        ) as session:
            with watch.stage("load the model"), console.status("loading the model"):
                await _wait_ready(session, infer)
            picture, status = await _generate(session, console, watch)
        with watch.stage("stop both"):
            api.stop()
            infer.stop()
    path = data_dir / "umrgen-demo.png"
    path.write_bytes(picture)
    _report(console, watch, status, path)


def _migrate(config: Path, environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "umrgen_core.migrate", "--config", str(config)]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise DemoFailed(f"the database could not be made: {done.stderr.strip()}")


async def _wait_ready(session: aiohttp.ClientSession, infer: Daemon) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline:
        infer.require_alive()
        async with session.get("/readyz") as response:
            if response.status == 200:
                return
        await asyncio.sleep(POLL_S)
    raise DemoFailed(f"the inference daemon was not ready within {READY_TIMEOUT_S:g} s; its log: {infer.log}")


async def _generate(session: aiohttp.ClientSession, console: Console, watch: Stopwatch) -> tuple[bytes, dict[str, Any]]:
    with watch.stage("upload the reference"):
        form = aiohttp.FormData()
        form.add_field("file", REFERENCE.read_bytes(), filename=REFERENCE.name)
        upload = await _call(session, "POST", "/api/v1/upload-reference", data=form)
    with watch.stage("generate"):
        request = {"prompt": PROMPT, "reference_images": [upload["filename"]], "width": 512, "height": 512}
        accepted = await _call(session, "POST", "/api/v1/generate", json=request)
        status = await _follow(session, console, accepted["status_url"])
    with watch.stage("fetch the picture"):
        async with session.get(status["image_url"]) as response:
            return await response.read(), status


async def _follow(session: aiohttp.ClientSession, console: Console, status_url: str) -> dict[str, Any]:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total} steps"))
    deadline = time.monotonic() + JOB_TIMEOUT_S
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        bar = progress.add_task("queued")
        while time.monotonic() < deadline:
            status = await _call(session, "GET", status_url)
            done = status.get("progress", {}).get("step", status["steps"] if status["state"] == "completed" else 0)
            progress.update(bar, description=status["state"], total=status["steps"], completed=done)
            if status["state"] == "completed":
                return status
            if status["state"] in ("failed", "cancelled"):
                raise DemoFailed(f"the job {status['state']}: {status.get('error')}")
            await asyncio.sleep(POLL_S)
    raise DemoFailed(f"the job did not end within {JOB_TIMEOUT_S:g} s")


async def _call(session: aiohttp.ClientSession, method: str, path: str, **arguments: Any) -> dict[str, Any]:
    async with session.request(method, path, **arguments) as response:
        body: dict[str, Any] = await response.json()
    if not body["success"]:
        raise DemoFailed(f"{method} {path} was answered {response.status}: {body['message']}")
    return body


def _report(console: Console, watch: Stopwatch, status: dict[str, Any], path: Path) -> None:
    for name, seconds in watch.stages:
        console.print(f"{name:<24}{seconds:8.2f} s")
    for name, seconds in status["timings"].items():
        console.print(f"  of the job: {name:<16}{seconds:8.3f} s", style="dim")
    console.print(f"prompt:  {status['prompt']}\nseed:    {status['seed']}")
    console.print(f"picture: {path}", soft_wrap=True)


def run() -> int:
    """Entry of `make demo`."""
    parser = argparse.ArgumentParser(prog="umrgen-demo", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("config.toml"))
    parser.add_argument("--data-dir", type=Path, default=Path("var/demo"), help="the demo's own; default var/demo")
    options = parser.parse_args()
    data_dir = options.data_dir.resolve()
    try:
        asyncio.run(main(options.config, data_dir, Console()))
    except (DemoFailed, ProcessFailed, ConfigError, aiohttp.ClientError, OSError) as error:
        print(f"demo: {error}\nlogs: {data_dir}/demo-api.log and {data_dir}/demo-infer.log", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(run())
