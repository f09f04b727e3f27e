"""What a picture shows, as plain data: the truth that the checker compares with."""

from dataclasses import dataclass, replace

from training.palette import Rgb

NATIVE_PX = 64
SHAPES = ("circle", "square", "triangle", "star", "ring", "cross", "heart")
BACKDROPS = ("plain", "gradient", "stripes", "checker")
STYLES = ("flat", "outlined", "soft", "pixel")


@dataclass(frozen=True, slots=True)
class Thing:
    """One shape: its centre and radius in native pixels, its tilt in degrees."""

    shape: str
    colour: str
    rgb: Rgb
    x_px: float
    y_px: float
    radius_px: float
    tilt_deg: float = 0.0


@dataclass(frozen=True, slots=True)
class Backdrop:
    """What is behind the things; `second` is unused on a plain backdrop."""

    kind: str
    first: str
    first_rgb: Rgb
    second: str
    second_rgb: Rgb
    vertical: bool = True


@dataclass(frozen=True, slots=True)
class Scene:
    """A backdrop and the things before it, first one lowest."""

    backdrop: Backdrop
    things: tuple[Thing, ...]
    style: str = "flat"

    def on(self, backdrop: Backdrop) -> "Scene":
        """The same things on another backdrop."""
        return replace(self, backdrop=backdrop)
