"""References that were decoded and fitted once, kept by their content: the next job often names the same ones."""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future
from contextlib import suppress

from PIL import Image

from umrgen_core.errors import RunError
from umrgen_core.files import FileStore
from umrgen_core.jobs import Pin
from umrgen_core.meter import QUIET, Meter
from umrgen_core.profiles import ModelProfile, RenderSize
from umrgen_infer.images import load_reference
from umrgen_infer.reference_fit import ReferenceFit, choose_fit

BYTES_PER_PIXEL = 3
Key = tuple[str, ReferenceFit]
"""A picture by the SHA-256 of its file, and what was made of it."""


class ReferenceCache:
    """Pictures as models take them, the last used kept within a budget. May be called from several threads at once."""

    def __init__(self, budget_bytes: int, meter: Meter = QUIET) -> None:
        self._budget_bytes = budget_bytes
        self._meter = meter
        self._lock = threading.Lock()
        self._kept: OrderedDict[Key, Image.Image] = OrderedDict()
        self._loading: dict[Key, Future[Image.Image]] = {}
        """What a thread is decoding: others that want the same wait for it."""
        self.kept_bytes = 0
        """Memory of the pictures kept."""

    def load(
        self, files: FileStore, pins: tuple[Pin, ...], profile: ModelProfile, size: RenderSize
    ) -> tuple[Image.Image, ...]:
        """The images of a job as the model takes them, RGB, in the agent's order. They are shared: not to be changed.

        `size` is what will be painted. Raises RunError invalid_reference when a file that is not kept is missing or
        is not what its row says.
        """
        fit = choose_fit(profile, size)
        return tuple(self._load_one(files, pin, fit) for pin in pins)

    def prefetch(self, files: FileStore, pins: tuple[Pin, ...], profile: ModelProfile, size: RenderSize) -> None:
        """Have ready what `load` will be asked for. What cannot be loaded is left to `load` to tell."""
        fit = choose_fit(profile, size)
        for pin in pins:
            with suppress(RunError):
                self._load_one(files, pin, fit)

    def _load_one(self, files: FileStore, pin: Pin, fit: ReferenceFit) -> Image.Image:
        key = (pin.sha256, fit)
        with self._lock:
            kept = key in self._kept
            self._meter.reference_wanted(kept=kept)
            if kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            loading = self._loading.get(key)
            if loading is None:
                mine = self._loading[key] = Future[Image.Image]()
        if loading is None:
            return self._decode(files, pin, key, mine)
        with suppress(RunError):  # it speaks of another job's reference
            return loading.result()
        return load_reference(files, pin, fit)

    def _decode(self, files: FileStore, pin: Pin, key: Key, mine: Future[Image.Image]) -> Image.Image:
        try:
            image = load_reference(files, pin, key[1])
        except BaseException as error:
            with self._lock:
                del self._loading[key]
            mine.set_exception(error)
            raise
        with self._lock:
            del self._loading[key]
            self._keep(key, image)
        mine.set_result(image)
        return image

    def _keep(self, key: Key, image: Image.Image) -> None:
        size_bytes = _count_bytes(image)
        if size_bytes > self._budget_bytes:
            return
        while self.kept_bytes + size_bytes > self._budget_bytes:
            _, forgotten = self._kept.popitem(last=False)
            self.kept_bytes -= _count_bytes(forgotten)
        self._kept[key] = image
        self.kept_bytes += size_bytes


def _count_bytes(image: Image.Image) -> int:
    return image.width * image.height * BYTES_PER_PIXEL
