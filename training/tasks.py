"""Draws requests at random, with references and whims: the training and test distribution."""

from dataclasses import dataclass

import numpy as np

from training.layout import lay_out
from training.palette import COLOURS
from training.photo import Reference, make_reference
from training.request import (
    ENCLOSING,
    OPEN,
    PLACES,
    RELATIONS,
    WHIMS,
    Request,
    Trait,
    Wanted,
    WantedBackdrop,
)
from training.scene import BACKDROPS, SHAPES, STYLES, Scene

# Share of each kind in a pool. Copying a reference's outline in place is learnt first and needs
# least; drawing a shape from its name where the noise wants it takes longest.
SHARES = {
    "one": 0.36,
    "two": 0.22,
    "count": 0.05,
    "pattern": 0.06,
    "style": 0.04,
    "ref colour": 0.15,
    "ref shape": 0.04,
    "ref keep": 0.03,
    "ref both": 0.05,
}
KINDS = tuple(SHARES)
REFERENCES_OF = {"ref colour": 1, "ref shape": 1, "ref keep": 1, "ref both": 2}
Rng = np.random.Generator


@dataclass(frozen=True, slots=True)
class Task:
    """A request with its references, the whims (len(WHIMS),) in (0, 1), and the right answer."""

    request: Request
    references: tuple[Reference, ...]
    whims: tuple[float, ...]
    scene: Scene


def make_task(kind: str, rng: Rng) -> Task:
    """One task of this kind."""
    references = _references(kind, rng)
    shown = [reference.thing for reference in references]
    taken = [thing.colour for thing in shown]
    request = _REQUESTS[kind](rng, taken)
    whims = tuple(float(u) for u in rng.uniform(1e-4, 1 - 1e-4, len(WHIMS)))
    scene = lay_out(request, shown, dict(zip(WHIMS, whims, strict=True)))
    return Task(request, references, whims, scene)


def _references(kind: str, rng: Rng) -> tuple[Reference, ...]:
    if kind == "ref both":
        return tuple(make_reference(rng, for_shape=True) for _ in range(2))
    if kind == "ref colour":
        return (make_reference(rng, for_shape=False),)
    return tuple(make_reference(rng, for_shape=True) for _ in range(REFERENCES_OF.get(kind, 0)))


def _other(rng: Rng, taken: list[str]) -> str:
    return str(rng.choice([c for c in COLOURS if c not in taken]))


def _plain(rng: Rng, taken: list[str], said: float) -> WantedBackdrop | None:
    """A plain backdrop that the things stand out from; unsaid means white."""
    if "white" not in taken and rng.random() > said:
        return None
    if "white" not in taken and rng.random() < 0.3:
        return WantedBackdrop("plain", "white")
    return WantedBackdrop("plain", _other(rng, taken))


def _named(rng: Rng, colour: str, *, open_share: float = 0.04) -> Wanted:
    shape = OPEN if rng.random() < open_share else Trait(str(rng.choice(SHAPES)))
    return Wanted(shape, OPEN if rng.random() < open_share else Trait(colour))


def _with_size_or_place(rng: Rng, wanted: Wanted) -> Wanted:
    size = str(rng.choice(["small", "large"])) if rng.random() < 0.25 else None
    place = str(rng.choice(list(PLACES))) if size is None and rng.random() < 0.35 else None
    return Wanted(wanted.shape, wanted.colour, size, place)


def _one(rng: Rng, taken: list[str]) -> Request:
    if rng.random() < 0.03:  # a prompt about something else still gets a clean picture
        return Request("one", (Wanted(OPEN, OPEN),))
    colour = _other(rng, taken)
    wanted = _with_size_or_place(rng, _named(rng, colour))
    return Request("one", (wanted,), backdrop=_plain(rng, [colour], 0.7))


def _two(rng: Rng, taken: list[str]) -> Request:
    first = _other(rng, [])
    second = _other(rng, [first])
    relation = str(rng.choice([*RELATIONS, "", "left", "right", "above", "below"])) or None
    things = [_named(rng, first, open_share=0), _named(rng, second, open_share=0)]
    if relation == "inside":
        things[1] = Wanted(Trait(str(rng.choice(ENCLOSING))), things[1].colour)
    elif rng.random() < 0.15:
        big = int(rng.integers(2))
        things[big] = Wanted(things[big].shape, things[big].colour, "large")
        things[1 - big] = Wanted(things[1 - big].shape, things[1 - big].colour, "small")
    return Request("two", tuple(things), relation, _plain(rng, [first, second], 0.45))


def _count(rng: Rng, taken: list[str]) -> Request:
    colour = _other(rng, [])
    wanted = Wanted(Trait(str(rng.choice(SHAPES))), Trait(colour), count=int(rng.integers(2, 5)))
    return Request("count", (wanted,), backdrop=_plain(rng, [colour], 0.4))


def _pattern(rng: Rng, taken: list[str]) -> Request:
    colour = _other(rng, [])
    first = _other(rng, [colour])
    backdrop = WantedBackdrop(str(rng.choice(BACKDROPS[1:])), first, _other(rng, [colour, first]))
    return Request("pattern", (_named(rng, colour),), backdrop=backdrop)


def _style(rng: Rng, taken: list[str]) -> Request:
    style = str(rng.choice(STYLES[1:]))
    hidden = ["black"] if style == "outlined" else []  # the contour is black
    colour = _other(rng, hidden)
    backdrop = _plain(rng, [colour, *hidden], 0.4)
    return Request("style", (_named(rng, colour, open_share=0),), backdrop=backdrop, style=style)


def _ref_colour(rng: Rng, taken: list[str]) -> Request:
    wanted = Wanted(Trait(str(rng.choice(SHAPES))), Trait(reference=0))
    if rng.random() < 0.3:
        wanted = _with_size_or_place(rng, wanted)
    return Request("ref colour", (wanted,), backdrop=_plain(rng, taken, 0.4))


def _ref_shape(rng: Rng, taken: list[str]) -> Request:
    colour = _other(rng, [])
    wanted = Wanted(Trait(reference=0), Trait(colour))
    return Request("ref shape", (wanted,), backdrop=_plain(rng, [colour], 0.4))


def _ref_keep(rng: Rng, taken: list[str]) -> Request:
    wanted = Wanted(Trait(reference=0), Trait(reference=0))
    return Request("ref keep", (wanted,), backdrop=_plain(rng, taken, 0.9))


def _ref_both(rng: Rng, taken: list[str]) -> Request:
    shape = int(rng.random() < 0.3)
    wanted = Wanted(Trait(reference=shape), Trait(reference=1 - shape))
    return Request("ref both", (wanted,), backdrop=_plain(rng, [taken[1 - shape]], 0.35))


_REQUESTS = {
    "one": _one,
    "two": _two,
    "count": _count,
    "pattern": _pattern,
    "style": _style,
    "ref colour": _ref_colour,
    "ref shape": _ref_shape,
    "ref keep": _ref_keep,
    "ref both": _ref_both,
}
