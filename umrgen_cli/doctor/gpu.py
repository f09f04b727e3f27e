"""The GPU, and with --deep what torch makes of it: torch runs in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from umrgen_cli.doctor.findings import Finding, Patient, good, problem, warning
from umrgen_cli.figures import show_bytes
from umrgen_core.gpus import Gpu, Gpus

TORCH_S = 180.0
MODEL_S = 1800.0
HOT_C = 87
LOOK = """
import json, torch
print(json.dumps({"torch": torch.__version__, "cuda": torch.version.cuda, "devices": torch.cuda.device_count()}))
"""


def check_gpu(patient: Patient) -> Iterator[Finding]:
    """A device for every model that asks for one, and large enough."""
    gpus = Gpus()
    found = gpus.read()
    gpus.close()
    wishes = {name: profile.device for name, profile in patient.settings.served_models.items()}
    if found is None:
        yield _judge_absence(wishes)
        return
    for gpu in found:
        yield _judge_gpu(gpu)
    largest = max((gpu.memory_total_bytes or 0 for gpu in found), default=0)
    for name, profile in patient.settings.served_models.items():
        if wishes[name] != "cpu" and largest and profile.memory_bytes > largest:
            seen = f"{name} takes {show_bytes(profile.memory_bytes)}, the largest GPU has {show_bytes(largest)}"
            yield warning("GPU memory", seen, f'set [models.{name}] offload or storage_dtype = "float8_e4m3fn"')


def _judge_absence(wishes: dict[str, str]) -> Finding:
    needing = [name for name, device in wishes.items() if device.startswith("cuda")]
    hoping = [name for name, device in wishes.items() if device == "auto"]
    seen = "no NVIDIA driver answers"
    if Path("/dev/nvidia0").exists():
        return problem("GPU", f"{seen}, though there is a device", "install nvidia-ml-py, or load the driver anew")
    if needing:
        return problem("GPU", f"{seen}; {', '.join(needing)} cannot run", 'install the driver, or set device = "auto"')
    if hoping:
        return warning("GPU", f"{seen}; {', '.join(hoping)} would run on the processor", "install the driver")
    return good("GPU", f"none, and none is needed: {', '.join(wishes)} runs on the processor")


def _judge_gpu(gpu: Gpu) -> Finding:
    seen = f"{gpu.index}: {gpu.name}"
    if gpu.memory_total_bytes:
        seen += f", {show_bytes(gpu.memory_used_bytes or 0)} of {show_bytes(gpu.memory_total_bytes)} in use"
    if gpu.temperature_c is not None:
        seen += f", {gpu.temperature_c} °C"
        if gpu.temperature_c >= HOT_C:
            return warning("GPU", seen, "it slows itself down when hot: see to its air")
    return good("GPU", seen)


def check_torch(patient: Patient) -> Iterator[Finding]:
    """Whether torch sees the devices that the driver sees. Takes seconds, so only when asked for."""
    if not patient.deep:
        return
    done = _run([sys.executable, "-c", LOOK], TORCH_S)
    if done.returncode:
        yield problem("torch", _last_line(done), "run 'make setup', or install the extra infer again")
        return
    torch = json.loads(done.stdout)
    seen = f"{torch['torch']}, CUDA {torch['cuda'] or 'not built in'}, {torch['devices']} devices"
    gpus = Gpus().read() or []
    if gpus and not torch["devices"]:
        yield problem("torch", seen, "the driver is older than torch's CUDA, or this torch is for processors alone")
    else:
        yield good("torch", seen)


def check_painting(patient: Patient) -> Iterator[Finding]:
    """Loads and paints with each model that is served, as `umrgen-infer check` does. Minutes, and GPU memory."""
    if not patient.deep:
        return
    for name in patient.settings.infer.models:
        command = [sys.executable, "-m", "umrgen_infer.check", "--config", str(patient.config), "--profile", name]
        done = _run(command, MODEL_S)
        if done.returncode:
            yield problem("painting", f"{name}: {_last_line(done)}", f"run: umrgen-infer check --profile {name}")
        else:
            yield good("painting", _last_line(done))


def _run(command: list[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "NO_COLOR": "1", "COLUMNS": "200"},
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"not done after {timeout_s:g} s")


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = (done.stderr if done.returncode else done.stdout).strip().splitlines()
    return lines[-1].strip() if lines else f"ended with status {done.returncode}"
