"""What a model can do and its limits, as data: the web tier validates with it, the daemon loads from it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

MIN_SIDE_PX = 64
MAX_SIDE_PX = 2048
MAX_STEPS = 50


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
    """Folder in diffusers' layout; `package:NAME/FOLDER` is a folder inside an installed package."""
    revision: str = ""
    """Which weights these are; written into every PNG."""
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """Data type of the weights in memory."""
    device: str = "auto"
    """`auto` is CUDA where there is one, else the CPU; or any torch device string."""
    steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] = 4
    """Denoising steps of a request that names none."""
    max_steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] = MAX_STEPS
    """Most steps that a request may ask for."""
    references: Annotated[int, Field(ge=0, le=16)] = 0
    """Most reference images that a request may name."""
    negative: bool = False
    """Whether the pipeline takes a negative prompt; if not, it is listed in `ignored`."""
    native_px: Annotated[int, Field(ge=16, le=MAX_SIDE_PX)] | None = None
    """Side of the one square size that the model paints; None when it paints any size."""
    multiple_px: Annotated[int, Field(ge=1, le=128)] = 16
    """What both sides of a painted picture must be a multiple of."""
    arguments: dict[str, Any] = {}
    """Fixed arguments of every call of the pipeline."""

    def render_size(self, width: int, height: int) -> RenderSize:
        """The size to paint for a request of `width` x `height` pixels: never smaller, unless native."""
        if self.native_px is not None:
            return RenderSize(width=self.native_px, height=self.native_px)
        m = self.multiple_px
        return RenderSize(width=-(-width // m) * m, height=-(-height // m) * m)
