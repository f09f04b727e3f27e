"""What a model can do and its limits, as data: the web tier validates with it, the daemon loads from it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

MIN_SIDE_PX = 64
MAX_SIDE_PX = 2048
MAX_STEPS = 50
MAX_REFERENCES = 16
MAX_LORAS = 8
PACKAGE_PREFIX = "package:"
HUB_PREFIX = "hub:"

Pixels = Annotated[int, Field(ge=0, le=1 << 26)]
Size = Annotated[str, Field(pattern=r"^\d{2,4}x\d{2,4}$")]


class ReferencesAs(StrEnum):
    """How a pipeline takes reference images."""

    NONE = "none"
    """Not at all."""
    LIST = "list"
    """`image=[a, b]`, in order."""
    SINGLE = "single"
    """`image=a`."""
    STRENGTH = "strength"
    """`image=a, strength=s`: denoising starts from the reference, resized to the picture."""
    IP_ADAPTER = "ip_adapter"
    """`ip_adapter_image=[[a, b]]`, through an adapter that is loaded beside the weights."""


class RenderSize(BaseModel):
    """What the pipeline is asked to paint before the picture is brought to the requested size."""

    model_config = ConfigDict(frozen=True)
    width: int
    height: int


class ModelProfile(BaseModel):
    """One `[models.NAME]` of config.toml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pipeline: str
    """Name of a pipeline class of diffusers."""
    path: str
    """Folder in diffusers' layout; `package:NAME/FOLDER` inside an installed package; `hub:OWNER/NAME` on the hub."""
    revision: str = ""
    """Which weights these are: the commit, where they come from the hub; written into every PNG."""
    licence: str = ""
    """Under which terms the weights may be used; shown by GET /api/v1/models."""
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """Data type of the weights in memory."""
    device: str = "auto"
    """`auto` is CUDA where there is one, else the CPU; or any torch device string."""

    steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] = 4
    """Denoising steps of a request that names none."""
    min_steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] = 1
    """Fewest steps that a request may ask for."""
    max_steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] = MAX_STEPS
    """Most steps that a request may ask for."""
    guidance_argument: str = ""
    """Argument that takes the guidance; empty for a pipeline that has none."""
    guidance: Annotated[float, Field(ge=0, le=50)] = 0.0
    """Its value."""
    negative: bool = False
    """Whether the pipeline takes a negative prompt at this guidance; if not, it is listed in `ignored`."""
    scheduler: dict[str, Any] = {}
    """Settings of the scheduler that differ from those beside the weights."""
    arguments: dict[str, Any] = {}
    """Fixed arguments of every call of the pipeline."""

    references_as: ReferencesAs = ReferencesAs.NONE
    """How references go in."""
    references: Annotated[int, Field(ge=0, le=MAX_REFERENCES)] = 0
    """Most reference images that a request may name."""
    min_references: Annotated[int, Field(ge=0, le=MAX_REFERENCES)] = 0
    """Fewest: 1 for a pipeline that only edits."""
    reference_area_px: Pixels = 0
    """A larger reference is scaled down to this many pixels; 0 for no cap of ours."""
    reference_min_px: Annotated[int, Field(ge=0, le=MAX_SIDE_PX)] = 0
    """A reference with a shorter side is scaled up to it."""
    reference_max_aspect: Annotated[float, Field(ge=1, le=128)] = 128.0
    """A reference that is longer for its width is padded with white to this ratio."""
    reference_pipeline: str = ""
    """Another pipeline class over the same weights, for requests with references."""
    reference_strength: Annotated[float, Field(ge=0, le=1)] = 0.0
    """With `strength`: the share of the steps that are run on the noised reference."""
    ip_adapter: str = ""
    """With `ip_adapter`: folder or hub:OWNER/NAME, then `/SUBFOLDER/FILE.safetensors`; its encoder is SUBFOLDER's."""
    ip_adapter_scale: Annotated[float, Field(ge=0, le=2)] = 0.6
    """How strongly the adapter's references count."""

    native_px: Annotated[int, Field(ge=16, le=MAX_SIDE_PX)] | None = None
    """Side of the one square size that the model paints; None when it paints any size."""
    multiple_px: Annotated[int, Field(ge=1, le=256)] = 16
    """What both sides of a painted picture must be a multiple of."""
    max_area_px: Pixels = MAX_SIDE_PX * MAX_SIDE_PX
    """Most pixels that a request may ask for."""
    area_argument: str = ""
    """Argument that takes the picture's area, for a pipeline that otherwise paints one of its own choice."""

    fused_lora: str = ""
    """A LoRA that belongs to the model: folder/FILE or hub:OWNER/NAME/FILE, fused into the weights at start."""
    fused_lora_strength: Annotated[float, Field(ge=-4, le=4)] = 1.0
    """Its strength."""
    loras: Annotated[int, Field(ge=0, le=MAX_LORAS)] = 0
    """Most LoRAs that a request may name."""

    attention: str = ""
    """Attention backend of diffusers, such as native, _native_cudnn, flash, sage; empty for diffusers' own choice."""
    compile: str = ""
    """Backend of torch.compile for the repeated blocks, such as inductor; empty for none."""
    warm_up: list[Size] = []
    """Sizes painted once at start, without and with references, so that no job waits for it."""
    cache_bytes: Annotated[int, Field(ge=0, le=1 << 40)] = 0
    """Memory for prompt embeddings and reference latents that are used again."""
    storage_dtype: Literal["", "float8_e4m3fn", "float8_e5m2"] = ""
    """The denoiser's weights are kept in this type and widened as they are used; empty for `dtype`."""
    offload: Literal["", "model", "sequential"] = ""
    """Parts that are not in use wait in the computer's memory; empty for none."""
    memory_bytes: Annotated[int, Field(ge=0, le=1 << 42)] = 0
    """What the loaded weights take on the device; 0 until it is measured."""
    batch: Annotated[int, Field(ge=1, le=16)] = 1
    """Most equal jobs without references that are painted together, where that proves faster at start."""

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> ModelProfile:
        if not self.min_steps <= self.steps <= self.max_steps:
            raise ValueError("steps must lie between min_steps and max_steps")
        if self.min_references > self.references:
            raise ValueError("min_references must be at most references")
        if (self.references > 0) != (self.references_as is not ReferencesAs.NONE):
            raise ValueError(
                'references_as must be "none" where references is 0, and say how they go in where it is not'
            )
        if self.references > 1 and self.references_as in (ReferencesAs.SINGLE, ReferencesAs.STRENGTH):
            raise ValueError(f'references_as = "{self.references_as}" takes 1 reference')
        if self.references_as is ReferencesAs.STRENGTH and not self.keeps_reference(self.min_steps):
            raise ValueError(
                "min_steps * (1 - reference_strength) must be at least 1, or else the reference is painted over"
            )
        if (self.references_as is ReferencesAs.IP_ADAPTER) != bool(self.ip_adapter):
            raise ValueError('ip_adapter goes with references_as = "ip_adapter"')
        return self

    def keeps_reference(self, steps: int) -> bool:
        """Whether so many steps leave something of a reference that denoising starts from."""
        return 0 < self.reference_strength < 1 and int(steps - steps * self.reference_strength) >= 1

    def render_size(self, width: int, height: int) -> RenderSize:
        """The size to paint for a request of `width` x `height` pixels: never smaller, unless native."""
        if self.native_px is not None:
            return RenderSize(width=self.native_px, height=self.native_px)
        m = self.multiple_px
        return RenderSize(width=-(-width // m) * m, height=-(-height // m) * m)
