"""What a prompt asks for, before any wording: the grammar's meaning."""

from dataclasses import dataclass

PLACES: dict[str, tuple[int, int]] = {
    "left": (-1, 0),
    "right": (1, 0),
    "top": (0, -1),
    "bottom": (0, 1),
    "centre": (0, 0),
    "top left": (-1, -1),
    "top right": (1, -1),
    "bottom left": (-1, 1),
    "bottom right": (1, 1),
}
RELATIONS = ("left", "right", "above", "below", "inside")
ENCLOSING = ("circle", "square")  # shapes with room for another one inside

# The free choices of a picture: what the prompt leaves open is decided by the initial noise.
WHIMS = ("x", "y", "size", "shade", "colour", "shape", "backdrop")


@dataclass(frozen=True, slots=True)
class Trait:
    """Where a shape or colour comes from: a name, a reference (0, 1), or left open (both None)."""

    name: str | None = None
    reference: int | None = None

    @property
    def is_open(self) -> bool:
        return self.name is None and self.reference is None


OPEN = Trait()


@dataclass(frozen=True, slots=True)
class Wanted:
    """One thing, or `count` equal things, as asked for."""

    shape: Trait
    colour: Trait
    size: str | None = None  # "small", "large"
    place: str | None = None  # a key of PLACES
    count: int = 1


@dataclass(frozen=True, slots=True)
class WantedBackdrop:
    """A backdrop as asked for; `second` is for two-coloured kinds only."""

    kind: str
    first: str
    second: str | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """Kind is the evaluation category; relation is that of things[0] to things[1]."""

    kind: str
    things: tuple[Wanted, ...]
    relation: str | None = None
    backdrop: WantedBackdrop | None = None
    style: str = "flat"
