"""From a request, its references and the whims to the one scene they mean.

The scene is a function of (request, references, whims) and nothing else. The whims are read off the
initial noise, so a picture is a function of noise, prompt and references: learning it is plain
regression, with no averaging over what the prompt left open, and few steps suffice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from training.palette import COLOURS, Rgb, shade
from training.request import PLACES, Request, Trait, Wanted
from training.scene import NATIVE_PX, SHAPES, Backdrop, Scene, Thing

MIDDLE_PX = NATIVE_PX / 2
Whims = Mapping[str, float]  # name → uniform in (0, 1)


def pick(options: Sequence[str], whim: float) -> str:
    """One of the options, equal shares of (0, 1) each."""
    return options[min(int(whim * len(options)), len(options) - 1)]


def lay_out(request: Request, references: Sequence[Thing], whims: Whims) -> Scene:
    """The scene that is right for this request, these references and this noise."""
    backdrop = _backdrop(request, whims)
    behind = (backdrop.first, backdrop.second)
    if len(request.things) == 2:
        things = _pair(request, references, whims, behind)
    else:
        things = _one_or_more(request.things[0], references, whims, behind)
    return Scene(backdrop, things, request.style)


def _backdrop(request: Request, whims: Whims) -> Backdrop:
    asked = request.backdrop
    swing = 2 * whims["backdrop"] - 1
    if asked is None:
        white = shade("white", swing)
        return Backdrop("plain", "white", white, "white", white)
    second = asked.second or asked.first
    vertical = asked.kind != "stripes" or whims["shape"] < 0.5
    return Backdrop(asked.kind, asked.first, shade(asked.first, swing), second, shade(second, swing), vertical)


def _colour(trait: Trait, references: Sequence[Thing], whims: Whims, taken: Sequence[str]) -> tuple[str, Rgb]:
    if trait.reference is not None:
        source = references[trait.reference]
        return source.colour, source.rgb
    name = trait.name or pick([c for c in COLOURS if c not in taken], whims["colour"])
    return name, shade(name, 2 * whims["shade"] - 1)


def _free_radius(size: str | None, whim: float) -> float:
    if size == "small":
        return 10.5 + 1.5 * whim
    if size == "large":
        return 20 + 3 * whim
    return 13 + 5 * whim


def _one_or_more(wanted: Wanted, references: Sequence[Thing], whims: Whims, behind: Sequence[str]) -> tuple[Thing, ...]:
    colour, rgb = _colour(wanted.colour, references, whims, behind)
    if wanted.shape.reference is not None:  # the reference's outline, where the reference has it
        return (replace(references[wanted.shape.reference], colour=colour, rgb=rgb),)
    shape = wanted.shape.name or pick(SHAPES, whims["shape"])
    if wanted.count > 1:
        radius = 11 + 1.2 * whims["size"]
        dx, dy = (3 * (whims["x"] - 0.5), 3 * (whims["y"] - 0.5))
        return tuple(
            Thing(shape, colour, rgb, MIDDLE_PX + x * 15.5 + dx, MIDDLE_PX + y * 15.5 + dy, radius)
            for x, y in _SPOTS[wanted.count]
        )
    radius = _free_radius(wanted.size, whims["size"])
    if wanted.place is not None:
        radius = min(radius, 16.5)
    room = MIDDLE_PX - radius * 1.05 - 1.5
    if wanted.place is None:
        x = (2 * whims["x"] - 1) * min(room, 12)
        y = (2 * whims["y"] - 1) * min(room, 12)
    else:
        side_x, side_y = PLACES[wanted.place]
        x = side_x * min(room, 15) + 3 * (whims["x"] - 0.5)
        y = side_y * min(room, 15) + 3 * (whims["y"] - 0.5)
    return (Thing(shape, colour, rgb, MIDDLE_PX + x, MIDDLE_PX + y, radius),)


_SPOTS: dict[int, tuple[tuple[float, float], ...]] = {
    2: ((-1, 0), (1, 0)),
    3: ((-1, -1), (1, -1), (0, 1)),
    4: ((-1, -1), (1, -1), (-1, 1), (1, 1)),
}
_SIDES = {"left": (-1, 0), "right": (1, 0), "above": (0, -1), "below": (0, 1)}


def _pair(request: Request, references: Sequence[Thing], whims: Whims, behind: Sequence[str]) -> tuple[Thing, ...]:
    made = []
    taken = list(behind)
    for wanted in request.things:
        colour, rgb = _colour(wanted.colour, references, whims, taken)
        taken.append(colour)
        shape = wanted.shape.name or pick(SHAPES, whims["shape"])
        radius = {"small": 9.5, "large": 14.0}.get(wanted.size or "", 12) + 1.2 * whims["size"]
        made.append(Thing(shape, colour, rgb, MIDDLE_PX, MIDDLE_PX, radius))
    dx, dy = 3 * (whims["x"] - 0.5), 3 * (whims["y"] - 0.5)
    one, other = made
    if request.relation == "inside":
        inner = replace(one, x_px=one.x_px + dx, y_px=one.y_px + dy, radius_px=one.radius_px - 1)
        return replace(other, radius_px=other.radius_px * 2), inner
    side_x, side_y = _SIDES[request.relation or "left"]
    return tuple(
        replace(
            thing,
            x_px=MIDDLE_PX + sign * side_x * 15.5 + dx * (1 if side_x else 2),
            y_px=MIDDLE_PX + sign * side_y * 15.5 + dy * (1 if side_y else 2),
        )
        for thing, sign in ((one, 1), (other, -1))
    )
