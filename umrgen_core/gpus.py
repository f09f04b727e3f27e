"""The NVIDIA devices of this machine as their driver sees them: memory, load, heat and power. Needs no torch.

Reading takes a library that comes with the driver and the package nvidia-ml-py, which finds it. Where either is
missing there is nothing to read, and nobody minds.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

try:
    import pynvml
except ImportError:  # the extra `infer` brings it
    pynvml = None

VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True, slots=True)
class Gpu:
    """One device at one moment. What a device does not tell (a part of one, an old driver) is None."""

    index: int
    uuid: str
    name: str
    memory_used_bytes: int | None
    memory_total_bytes: int | None
    utilisation: float | None
    """Share of the last moments in which a kernel ran, 0 to 1."""
    temperature_c: int | None
    power_w: float | None


class Gpus:
    """The driver's library, opened at the first look. May be asked by several threads."""

    def __init__(self) -> None:
        self._opened: bool | None = None

    def read(self) -> list[Gpu] | None:
        """Every device that answers; None where there is no driver, or it no longer answers. Takes milliseconds."""
        if not self._open():
            return None
        try:
            found = [_find_one(index) for index in range(pynvml.nvmlDeviceGetCount())]
        except pynvml.NVMLError:
            found = []
        gpus = [gpu for gpu in found if gpu is not None]
        if not gpus:
            self.close()  # a driver that was reloaded is found again at the next look
        return gpus or None

    def _open(self) -> bool:
        if self._opened is None and pynvml is not None:
            try:
                pynvml.nvmlInit()
                self._opened = True
            except pynvml.NVMLError:
                return False
        return bool(self._opened)

    def close(self) -> None:
        """Let go of the library; the next look opens it again."""
        if self._opened:
            with suppress(pynvml.NVMLError):
                pynvml.nvmlShutdown()
            self._opened = None


def choose_visible(gpus: list[Gpu], environment: Mapping[str, str] = os.environ) -> list[Gpu]:
    """Those that CUDA_VISIBLE_DEVICES leaves to this process; all of them where what it says cannot be read here.

    A device that is named and not there is lost, and no other stands in for it.
    """
    named = [name.strip() for name in environment.get(VISIBLE, "").split(",") if name.strip()]
    if not named:
        return gpus
    chosen = [gpu for gpu in gpus if any(_is_meant(gpu, name) for name in named)]
    return chosen if chosen or all(map(_is_readable, named)) else gpus


def _is_readable(name: str) -> bool:
    return name.removeprefix("-").isdecimal() or name.startswith("GPU-")


def _is_meant(gpu: Gpu, name: str) -> bool:
    return name == str(gpu.index) or (name.startswith("GPU-") and gpu.uuid.startswith(name))


def _find_one(index: int) -> Gpu | None:
    """A device; None for one that is lost, which takes none of the others with it."""
    try:
        return _read_one(index)
    except pynvml.NVMLError:
        return None


def _read_one(index: int) -> Gpu:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory = _ask(lambda: pynvml.nvmlDeviceGetMemoryInfo(handle))
    rates = _ask(lambda: pynvml.nvmlDeviceGetUtilizationRates(handle))
    power_mw = _ask(lambda: pynvml.nvmlDeviceGetPowerUsage(handle))
    return Gpu(
        index=index,
        uuid=str(_ask(lambda: pynvml.nvmlDeviceGetUUID(handle)) or ""),
        name=str(_ask(lambda: pynvml.nvmlDeviceGetName(handle)) or ""),
        memory_used_bytes=None if memory is None else int(memory.used),
        memory_total_bytes=None if memory is None else int(memory.total),
        utilisation=None if rates is None else rates.gpu / 100,
        temperature_c=_ask(lambda: pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)),
        power_w=None if power_mw is None else power_mw / 1000,
    )


def _ask(question: Callable[[], Any]) -> Any:
    """The answer; None where this device has none. Raises NVMLError when the device or the driver is gone."""
    try:
        return question()
    except (pynvml.NVMLError_NotSupported, pynvml.NVMLError_NoPermission, pynvml.NVMLError_FunctionNotFound):
        return None
