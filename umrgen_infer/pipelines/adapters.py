"""LoRAs as peft keeps them in a pipeline's layers, and the layers as they were without."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from umrgen_core.logs import get_logger
from umrgen_infer.pipelines.faults import is_loss, is_shortage
from umrgen_infer.pipelines.lora_files import FOREIGN, UnfitLora, count_bytes, count_layers, require_fit

LOG = get_logger("loras")
TEXT_ENCODER = "text_encoder"
"""What the names of all text encoders of a pipeline begin with."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA that is loaded: its name within peft, its size, and whether it changes how prompts are read."""

    name: str
    size_bytes: int
    reads_prompts: bool


@dataclass(frozen=True, slots=True)
class Seat:
    """Where a layer of the model belongs, and the layer itself, plain and with LoRAs."""

    parent: nn.Module
    name: str
    plain: nn.Module
    adapted: Any
    in_text: bool
    """Whether it belongs to a text encoder."""


class Adapters:
    """The LoRAs of one pipeline. Outside of `hung` the pipeline consists of the very layers it was loaded with."""

    def __init__(self, pipeline: Any, dtype: torch.dtype) -> None:
        """`dtype` is what the model computes in, whatever its weights are kept in."""
        self._pipeline = pipeline
        self._seats: list[Seat] = []
        self._chosen: list[tuple[str, float]] = []
        """The last choice. What is loaded or deleted since then belongs to another one, for no name comes twice."""
        self._serial = itertools.count()
        for _, model in self._models():
            # peft takes the gradients off a model that it adds a LoRA to, which a compiled model would notice.
            model.requires_grad_(requires_grad=False)
            for layer in model.modules():
                if _is_kept_small(layer):
                    layer.compute_dtype = dtype  # type: ignore[assignment]  # peft's word for it: LoRAs are kept in it

    @contextmanager
    def hung(self) -> Iterator[None]:
        """The layers that LoRAs were loaded into are in place. Not to be nested."""
        self._seat("adapted")
        try:
            yield
        finally:
            self._seat("plain")

    def choose(self, adapters: Sequence[Adapter], strengths: Sequence[float]) -> None:
        """From now on these count, added up in their order. Only while hung."""
        chosen = [(adapter.name, strength) for adapter, strength in zip(adapters, strengths, strict=True)]
        if chosen != self._chosen:  # peft walks through the whole model for it
            self._chosen = []
            self._pipeline.set_adapters([name for name, _ in chosen], [strength for _, strength in chosen])
            self._chosen = chosen

    def load(self, label: str, tensors: Mapping[str, torch.Tensor]) -> Adapter:
        """Add a LoRA, called `label` in the log. Raises UnfitLora; all the others are then gone as well."""
        name = f"lora_{next(self._serial)}"  # peft allows no dots in a name
        with self.hung(), torch.no_grad():
            try:
                self._place(label, name, tensors)
            except BaseException as error:
                self._unload()  # whatever was half done
                if isinstance(error, FOREIGN) and not is_shortage(error) and not is_loss(error):
                    raise UnfitLora("it was made for another model") from error
                raise
        reads_prompts = any(seat.in_text and name in _list_adapters(seat.adapted) for seat in self._seats)
        return Adapter(name, count_bytes(tensors), reads_prompts)

    def delete(self, adapter: Adapter) -> None:
        """Let go of one."""
        with self.hung():
            self._pipeline.delete_adapters([adapter.name])

    def clear(self) -> None:
        """Let go of all."""
        with self.hung():
            self._unload()

    def _place(self, label: str, name: str, tensors: Mapping[str, torch.Tensor]) -> None:
        """Load through diffusers, which only warns of what it finds no layer for."""
        require_fit(self._pipeline, tensors)
        self._pipeline.load_lora_weights(dict(tensors), adapter_name=name)
        self._seats = list(self._find_seats())
        placed = sum(name in _list_adapters(seat.adapted) for seat in self._seats)
        layers = count_layers(tensors)
        if placed * 2 < layers:
            raise UnfitLora("it was made for another model")
        if placed < layers:
            LOG.warning("lora_fits_in_part", lora=label, placed=placed, layers=layers)

    def _unload(self) -> None:
        """Only while hung: diffusers looks for the layers where they belong."""
        self._seats, self._chosen = [], []
        self._pipeline.unload_lora_weights()

    def _seat(self, which: str) -> None:
        for seat in self._seats:
            setattr(seat.parent, seat.name, getattr(seat, which))

    def _models(self) -> Iterator[tuple[str, nn.Module]]:
        for part in self._pipeline._lora_loadable_modules:  # noqa: SLF001 - diffusers tells it nowhere else
            model = getattr(self._pipeline, part, None)
            if model is not None:
                yield part, model

    def _find_seats(self) -> Iterator[Seat]:
        for part, model in self._models():
            for parent in model.modules():
                for name, child in parent.named_children():
                    if isinstance(child, BaseTunerLayer):
                        yield Seat(parent, name, child.get_base_layer(), child, part.startswith(TEXT_ENCODER))


def _is_kept_small(layer: nn.Module) -> bool:
    weight = getattr(layer, "weight", None)
    return isinstance(weight, torch.Tensor) and weight.is_floating_point() and weight.element_size() == 1


def _list_adapters(layer: Any) -> set[str]:
    return {*layer.lora_A, *layer.lora_embedding_A}
