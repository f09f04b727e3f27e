"""Any diffusers pipeline as a Painter: seeded, watched step by step, timed stage by stage."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Any, Protocol

import torch

from umrgen_core.logs import get_logger
from umrgen_core.profiles import ModelProfile, ReferencesAs
from umrgen_infer.memory import DeviceMemory
from umrgen_infer.painter import Commission, DeviceLost, OnStep, OutOfMemory, Painting
from umrgen_infer.pipelines.batches import BatchTrial
from umrgen_infer.pipelines.caches import find_caches
from umrgen_infer.pipelines.call import build_arguments, build_shared_arguments
from umrgen_infer.pipelines.families import find_family
from umrgen_infer.pipelines.faults import free_memory, is_loss, is_shortage
from umrgen_infer.pipelines.pixels import to_pictures
from umrgen_infer.pipelines.prompts import build_disarm
from umrgen_infer.pipelines.speed import find_denoiser
from umrgen_infer.pipelines.stages import Stages, choose_ticks, watch

LOG = get_logger("painter")


class Loras(Protocol):
    """Who puts LoRAs on a pipeline and takes them off again."""

    def applied(self, loras: Sequence[tuple[str, float]]) -> AbstractContextManager[None]:
        """Their effect lasts as long as the context. Raises RunError for one that cannot be used."""

    def clear(self) -> None:
        """Let go of those that are loaded."""


@dataclasses.dataclass(frozen=True, slots=True)
class LoadedModel:
    """A pipeline that is ready, and what belongs to it."""

    pipeline: Any
    reference_pipeline: Any
    """Over the same weights, with a scheduler of its own; the first one again where the profile names no other."""
    profile: ModelProfile
    device: str
    loras: Loras
    ran_with: Mapping[str, object]
    """What holds for every run."""


class DiffusersPainter:
    """A loaded pipeline and the profile that says how to call it."""

    def __init__(self, model: LoadedModel) -> None:
        self._model: LoadedModel | None = model
        self._profile = model.profile
        self._denoiser = find_denoiser(model.pipeline)
        self._family = find_family(model.profile.pipeline)
        self._disarm = build_disarm(model.pipeline)
        self.device = model.device
        """Where it paints, as torch names it."""
        self.weight_bytes = count_weight_bytes(model.pipeline)
        """What the weights take."""
        self._on_cuda = torch.device(model.device).type == "cuda"
        self.batches: tuple[BatchTrial, ...] = ()
        """What proved faster at start, the smallest size first; replaced as a whole."""

    def close(self) -> None:
        """Let go of the weights."""
        self._model = self._denoiser = None
        free_memory()

    def paint(self, commission: Commission, on_step: OnStep, *, lean: bool = False) -> Painting:
        """Run the pipeline once. See Painter.paint for what it raises."""
        (painting,) = self._guard((commission,), on_step, lean=lean)
        return dataclasses.replace(painting, ran_with={**painting.ran_with, "lean": True}) if lean else painting

    def paint_together(self, commissions: Sequence[Commission], on_step: OnStep) -> Sequence[Painting]:
        """Run the pipeline once for all of them. See PaintsTogether; what takes time is told of the whole call."""
        paintings = self._guard(commissions, on_step, lean=False)
        return [dataclasses.replace(one, ran_with={**one.ran_with, "batch": len(paintings)}) for one in paintings]

    def find_most_together(self, width: int, height: int) -> int:
        """How many pictures of so many pixels proved faster in one call; 1 for none. Any thread may ask."""
        return next((trial.most for trial in self.batches if trial.area_px >= width * height), 1)

    def _guard(self, commissions: Sequence[Commission], on_step: OnStep, *, lean: bool) -> list[Painting]:
        """Paint, with errors of the device told apart and its memory freed."""
        model = self._require_model()
        self._set_lean(model, lean=lean)
        out_of_memory = ended = False
        try:
            painted = self._paint(model, commissions, on_step)
            ended = True
        except (RuntimeError, MemoryError) as error:
            if not is_shortage(error):
                if is_loss(error):
                    raise DeviceLost(str(error)) from error
                raise
            LOG.warning("memory_exhausted", error=str(error))
            out_of_memory = True
        finally:
            if not ended:
                with suppress(RuntimeError):  # on a lost device this fails, too, and must not hide why
                    model.pipeline.maybe_free_model_hooks()
        if out_of_memory:
            # Only here, outside the except block, do the traceback's tensors let go of their memory.
            free_memory()
            raise OutOfMemory
        return painted

    def read_memory(self) -> DeviceMemory | None:
        """The device's memory, whoever has taken it; None on a processor. Also of use once closed."""
        if not self._on_cuda:
            return None
        free_bytes, total_bytes = torch.cuda.mem_get_info(self.device)
        return DeviceMemory(total_bytes - free_bytes, total_bytes)

    def _require_model(self) -> LoadedModel:
        if self._model is None:
            raise RuntimeError("the painter is closed")
        return self._model

    @torch.no_grad()
    def _paint(self, model: LoadedModel, commissions: Sequence[Commission], on_step: OnStep) -> list[Painting]:
        first = commissions[0]
        pipeline = model.reference_pipeline if first.references else model.pipeline
        arguments = self._build_arguments(commissions)
        if self._profile.references_as is ReferencesAs.IP_ADAPTER:
            pipeline.set_ip_adapter_scale(self._profile.ip_adapter_scale if first.references else 0.0)
        if self._on_cuda:
            torch.cuda.reset_peak_memory_stats(model.device)
        stages = Stages(
            on_step, first.steps, lambda: getattr(pipeline, "num_timesteps", None), choose_ticks(model.device)
        )
        with (
            model.loras.applied(first.loras),
            self._family.calling(self._profile),
            watch(pipeline, self._denoiser, stages),
        ):
            images = to_pictures(pipeline(**arguments).images, len(commissions))
        peak_bytes = torch.cuda.max_memory_allocated(model.device) if self._on_cuda else 0
        timings, ran_with = stages.timings(), self._list_ran_with(pipeline)
        return [Painting(image, timings, ran_with, peak_bytes) for image in images]

    def _build_arguments(self, commissions: Sequence[Commission]) -> dict[str, Any]:
        spoken = [
            dataclasses.replace(one, prompt=self._disarm(one.prompt), negative=self._disarm(one.negative))
            for one in commissions
        ]
        if len(spoken) == 1:
            return build_arguments(self._profile, spoken[0])
        return build_shared_arguments(self._profile, spoken)

    def _list_ran_with(self, pipeline: Any) -> dict[str, object]:
        model, caches = self._require_model(), find_caches(pipeline)
        hits = {key: count for key, count in caches.take_counts().items() if count} if caches else {}
        return {**model.ran_with, **({"caches": hits} if hits else {})}

    def _set_lean(self, model: LoadedModel, *, lean: bool) -> None:
        """Decode in tiles, one picture at a time, and keep nothing, where memory is short."""
        for switch in ("tiling", "slicing"):
            name = f"{'enable' if lean else 'disable'}_{switch}"
            if hasattr(model.pipeline.vae, name):
                getattr(model.pipeline.vae, name)()
        caches = find_caches(model.pipeline)
        if lean:
            model.loras.clear()
        if lean and caches:
            caches.clear()


def count_weight_bytes(pipeline: Any) -> int:
    """Bytes of all the weights of a pipeline, wherever they are."""
    modules = (part for part in pipeline.components.values() if isinstance(part, torch.nn.Module))
    return sum(weight.nbytes for module in modules for weight in (*module.parameters(), *module.buffers()))
