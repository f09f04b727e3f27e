"""What a model wants of a reference picture, and how a picture is brought to that."""

from __future__ import annotations

import math
from dataclasses import dataclass

from PIL import Image, ImageOps

from umrgen_core.profiles import ModelProfile, ReferencesAs, RenderSize

REDUCING_GAP = 3.0
"""From this many times the wanted size on, a picture is reduced by whole numbers first, which is much faster."""
LANCZOS = Image.Resampling.LANCZOS
ROUNDING = 1e-6
"""Above the error of floating point, below a pixel."""


@dataclass(frozen=True, slots=True)
class ReferenceFit:
    """Equal for all jobs whose references come out the same, so that a fitted picture may be kept. In pixels."""

    covers: tuple[int, int] | None
    """Exactly this size, filled: what sticks out on two sides is cut off evenly."""
    native_px: int | None
    """A square of this side that holds the whole picture, padded with white."""
    area_px: int
    min_px: int
    max_aspect: float

    def fit(self, image: Image.Image) -> Image.Image:
        """`image` as the model takes it, always RGB. What is transparent becomes white, as a viewer would show it."""
        image = _flatten(image)
        if self.covers is not None:
            return image if image.size == self.covers else ImageOps.fit(image, self.covers, LANCZOS)
        if self.native_px is not None:
            square = (self.native_px, self.native_px)
            return image if image.size == square else ImageOps.pad(image, square, LANCZOS, color="white")
        size = self.scaled_size(*image.size)
        if size != image.size:
            image = image.resize(size, LANCZOS, reducing_gap=REDUCING_GAP)
        return self._pad(image)

    def scaled_size(self, width: int, height: int) -> tuple[int, int]:
        """How large a picture of `width` x `height` is in what `fit` makes of it, before anything is cut or padded."""
        if self.covers is not None:
            factor = max(self.covers[0] / width, self.covers[1] / height)
            return math.ceil(width * factor - ROUNDING), math.ceil(height * factor - ROUNDING)
        if self.native_px is not None:
            factor = self.native_px / max(width, height)
            return max(1, round(width * factor)), max(1, round(height * factor))
        return self._scale(width, height)

    def _scale(self, width: int, height: int) -> tuple[int, int]:
        """Down to the largest area, then up to the shortest side, padding and all; else as it is."""
        longer = max(width, height)
        shorter = max(min(width, height), longer / self.max_aspect)
        factor = 1.0
        if self.area_px and longer * shorter > self.area_px:
            factor = math.sqrt(self.area_px / (longer * shorter))
        if shorter * factor < self.min_px:
            factor = self.min_px / shorter
            return max(1, round(width * factor)), max(1, round(height * factor))
        return max(1, int(width * factor + ROUNDING)), max(1, int(height * factor + ROUNDING))

    def _pad(self, image: Image.Image) -> Image.Image:
        shortest = math.ceil(max(image.size) / self.max_aspect - ROUNDING)
        width, height = max(image.width, shortest), max(image.height, shortest)
        if (width, height) == image.size:
            return image
        ground = Image.new("RGB", (width, height), "white")
        ground.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
        return ground


def choose_fit(profile: ModelProfile, size: RenderSize) -> ReferenceFit:
    """What `profile` wants for a picture that is painted at `size`.

    A reference that denoising starts from fills the picture as a photo fills a frame: stretching would distort it,
    and white bars would be painted on.
    """
    covers = (size.width, size.height) if profile.references_as is ReferencesAs.STRENGTH else None
    return ReferenceFit(
        covers, profile.native_px, profile.reference_area_px, profile.reference_min_px, profile.reference_max_aspect
    )


def _flatten(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    ground = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(ground, image.convert("RGBA")).convert("RGB")
