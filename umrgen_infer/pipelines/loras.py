"""LoRAs of a request: hung into the pipeline for one picture, and taken out again without a trace."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from umrgen_core.errors import ConfigError, RunError
from umrgen_core.jobs import ErrorCode
from umrgen_core.profiles import ModelProfile
from umrgen_infer.pipelines.adapters import Adapter, Adapters
from umrgen_infer.pipelines.caches import find_caches
from umrgen_infer.pipelines.lora_files import LoraFile, UnfitLora, count_bytes, find_identity, read_tensors

RACK_BYTES = 2 << 30
"""Most bytes of LoRAs kept on the device; a request whose own take more is refused."""
RACK_COUNT = 16
"""Most LoRAs kept; a request names fewer."""

FindFile = Callable[[str], Path | None]
Choice = tuple[str, float]
"""Name and strength."""


class LoraRack:
    """LoRAs loaded through diffusers and peft, the last used kept. Owned by the thread that paints.

    Between jobs the model consists of the very layers it was loaded with, so that nothing of a LoRA stays: neither
    in the pictures nor in the time they take. Pipelines that share their parts share the LoRAs as well.
    """

    def __init__(self, pipeline: Any, find_file: FindFile, profile: ModelProfile) -> None:
        """`find_file` gives the file of a name, or None. Raises ConfigError for a pipeline that takes no LoRAs."""
        if profile.loras and not hasattr(pipeline, "load_lora_weights"):
            raise ConfigError(f"loras: must be 0, for {profile.pipeline} of diffusers takes none")
        self._pipeline = pipeline
        self._find_file = find_file
        self._dtype: torch.dtype = getattr(torch, profile.dtype)
        self._compiled = bool(profile.compile)
        self._adapters = Adapters(pipeline, self._dtype)
        self._kept: OrderedDict[LoraFile, Adapter] = OrderedDict()
        self._unfit: dict[LoraFile, str] = {}
        """Files that are not read again before the owner changes them, and why."""

    @property
    def kept_bytes(self) -> int:
        """Device memory that the loaded LoRAs take."""
        return sum(adapter.size_bytes for adapter in self._kept.values())

    def clear(self) -> None:
        """Let go of every LoRA, where memory is short or the weights are to be dropped."""
        if self._kept:
            self._kept.clear()
            self._adapters.clear()

    @contextmanager
    def applied(self, loras: Sequence[Choice]) -> Iterator[None]:
        """The pipeline with `loras`, added up in their order, for as long as the `with` lasts.

        Raises RunError `model_error` that names the LoRA whose file is missing, is no LoRA in safetensors, was made
        for another model or is too large. The pipeline is then as it was.
        """
        if not loras:
            yield
            return
        adapters = self._fetch([name for name, _ in loras])
        strengths = [strength for _, strength in loras]
        with self._adapters.hung(), self._salted(adapters, strengths), self._uncompiled():
            self._adapters.choose(adapters, strengths)
            yield

    def _fetch(self, names: Sequence[str]) -> list[Adapter]:
        files = {name: self._identify(name) for name in names}
        for name, file in files.items():
            if file not in self._kept:
                self._kept[file] = self._read(name, file, frozenset(files.values()))
            self._kept.move_to_end(file)
        return [self._kept[files[name]] for name in names]

    def _identify(self, name: str) -> LoraFile:
        path = self._find_file(name)
        file = find_identity(path) if path is not None else None
        if file is None:
            raise _refuse(name, "its file is gone")
        return file

    def _read(self, name: str, file: LoraFile, needed: frozenset[LoraFile]) -> Adapter:
        if file in self._unfit:
            raise _refuse(name, self._unfit[file])
        try:
            with torch.inference_mode(mode=False):  # what is made in it could not be changed outside of it
                tensors = read_tensors(file, self._dtype, RACK_BYTES)
                self._make_room(count_bytes(tensors), needed)
                return self._load(name, tensors)
        except UnfitLora as unfit:
            self._unfit[file] = str(unfit)
            raise _refuse(name, str(unfit)) from unfit

    def _load(self, name: str, tensors: dict[str, torch.Tensor]) -> Adapter:
        try:
            return self._adapters.load(name, tensors)
        except BaseException:
            self._kept.clear()  # as the adapters have done
            raise

    def _make_room(self, size_bytes: int, needed: frozenset[LoraFile]) -> None:
        for file in [file for file in self._kept if file not in needed]:
            if len(self._kept) < RACK_COUNT and self.kept_bytes + size_bytes <= RACK_BYTES:
                return
            self._adapters.delete(self._kept.pop(file))
        if self.kept_bytes + size_bytes > RACK_BYTES:
            message = f"The LoRAs of this job together take more than {RACK_BYTES >> 20} MiB. Name fewer."
            raise RunError(ErrorCode.MODEL_ERROR, message, retryable=False)

    @contextmanager
    def _salted(self, adapters: Sequence[Adapter], strengths: Sequence[float]) -> Iterator[None]:
        """Keep embeddings of prompts that a LoRA changes apart from the others."""
        caches = find_caches(self._pipeline)
        pairs = zip(adapters, strengths, strict=True)
        salt = tuple((adapter.name, strength) for adapter, strength in pairs if adapter.reads_prompts)
        if caches is None or not salt:
            yield
            return
        caches.salt, before = salt, caches.salt
        try:
            yield
        finally:
            caches.salt = before

    def _uncompiled(self) -> AbstractContextManager[None]:
        """Compiled blocks know the plain layers only, and would be compiled anew for every LoRA and strength."""
        return torch.compiler.set_stance("force_eager") if self._compiled else nullcontext()


def _refuse(name: str, reason: str) -> RunError:
    return RunError(
        ErrorCode.MODEL_ERROR,
        f"The LoRA {name} cannot be used: {reason}. Leave it out, or ask the owner of the service to replace it.",
        retryable=False,
    )
