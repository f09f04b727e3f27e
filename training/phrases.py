"""Noun phrases: things, places, references."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from training import words
from training.request import Trait, Wanted

Rng = np.random.Generator
T = TypeVar("T")


def one_of(rng: Rng, options: Sequence[T]) -> T:
    """One of the options, all equally likely."""
    return options[int(rng.integers(len(options)))]


def colour_word(name: str, rng: Rng) -> str:
    """A word for this colour."""
    return one_of(rng, words.COLOUR_WORDS[name])


def reference_name(index: int | None, rng: Rng, of_two: bool) -> str:
    """How a prompt points at a reference."""
    noun = one_of(rng, words.REFERENCE_WORDS)
    if not of_two:
        return f"{one_of(rng, ('the', 'the', 'this', 'my'))} {noun}"
    ordinal = one_of(rng, words.ORDINALS)[index or 0]
    if ordinal in ("first", "second"):
        return f"the {ordinal} {one_of(rng, (noun, noun, 'one'))}"
    return f"{noun} {ordinal}"


def noun_phrase(wanted: Wanted, style: str, rng: Rng, colour: Trait) -> str:
    """A noun phrase such as 'a big red circle' or 'a circle that is red'; colour may be open."""
    before: list[str] = []
    after: list[str] = []
    if wanted.size:
        before.append(one_of(rng, words.SIZE_WORDS[wanted.size]))
    if style != "flat":
        early, late = words.STYLE_WORDS[style]
        if rng.random() < 0.6:
            before.append(one_of(rng, early))
        else:
            after.append(one_of(rng, late))
    if colour.name:
        name = colour_word(colour.name, rng)
        if rng.random() < 0.75:
            before.append(name)
        else:
            forms = (f"that is {name}", f"in {name}", f"painted {name}", f"of {name} colour", name,
                     f"which is {name}")  # fmt: skip
            after.insert(0, one_of(rng, forms))
    if rng.random() < 0.3:
        rng.shuffle(before)
    if wanted.count > 1:
        noun = one_of(rng, words.PLURALS[wanted.shape.name or "circle"])
        return " ".join([one_of(rng, words.COUNT_WORDS[wanted.count]), *before, noun, *after])
    options = words.SHAPE_WORDS[wanted.shape.name] if wanted.shape.name else words.ANY_SHAPE
    article = one_of(rng, ("a", "a", "a", "the", "one", "")) if rng.random() < 0.9 else "a single"
    return " ".join([article, *before, one_of(rng, options), *after])


def placed(text: str, wanted: Wanted, rng: Rng) -> str:
    """The phrase with the place, if one is wanted, mostly behind it."""
    if not wanted.place:
        return text
    where = one_of(rng, words.PLACE_WORDS[wanted.place])
    return f"{where} {text}" if rng.random() < 0.2 else f"{text} {where}"
