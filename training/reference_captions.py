"""What prompts say about references."""

from collections.abc import Callable

from training.phrases import Rng, colour_word, noun_phrase, one_of, placed, reference_name
from training.request import Request, Trait

FORMS = ("shape", "shape", "form", "outline", "silhouette")


def coloured_like(request: Request, rng: Rng) -> str:
    """A named shape whose colour comes from the reference; saying so is optional."""
    wanted = request.things[0]
    noun = noun_phrase(wanted, "flat", rng, Trait())
    ref = reference_name(0, rng, of_two=False)
    forms = (f"in the colour of {ref}", f"in the colour of {ref}", f"with the colour of {ref}",
             f"coloured like {ref}", f"using the colour from {ref}", f"in {ref}'s colour",
             f"matching the colour of {ref}", f"in the same colour as {ref}", "")  # fmt: skip
    if rng.random() < 0.12:
        orders = (f"use the colour of {ref} for {noun}", f"make {noun} the colour of {ref}",
                  f"take the colour of {ref} and paint {noun}",
                  f"{noun} , same colour as {ref}")  # fmt: skip
        return placed(one_of(rng, orders), wanted, rng)
    return placed(f"{noun} {one_of(rng, forms)}", wanted, rng)


def shaped_like(request: Request, rng: Rng) -> str:
    """The reference's shape in a named colour."""
    colour = colour_word(request.things[0].colour.name or "red", rng)
    ref = reference_name(0, rng, of_two=False)
    form = one_of(rng, FORMS)
    forms = (f"the {form} of {ref} in {colour}", f"the {form} of {ref} in {colour}",
             f"{ref} in {colour}", f"a {colour} version of {ref}", f"make {ref} {colour}",
             f"paint {ref} {colour}", f"recolour {ref} to {colour}", f"{colour} {form} of {ref}",
             f"a {colour} thing with the same {form} as {ref}", f"turn {ref} {colour}",
             f"{ref}'s {form} in {colour}", f"a {colour} {form} like {ref}",
             f"{ref} but {colour}", f"the same {form} as {ref} but in {colour}",
             f"in {colour} , the {form} of {ref}",
             f"change the colour of {ref} to {colour}")  # fmt: skip
    return one_of(rng, forms)


def kept(request: Request, rng: Rng) -> str:
    """The reference as it is."""
    ref = reference_name(0, rng, of_two=False)
    thing = one_of(rng, (ref, ref, f"the object from {ref}", f"the shape of {ref}", f"the thing in {ref}"))
    return one_of(rng, (thing, thing, f"put {thing}", f"place {thing}", f"keep {thing} but", f"copy {thing}"))


def mixed(request: Request, rng: Rng) -> str:
    """Shape from one reference, colour from the other."""
    wanted = request.things[0]
    giver = reference_name(wanted.shape.reference, rng, of_two=True)
    tint = reference_name(wanted.colour.reference, rng, of_two=True)
    form = one_of(rng, FORMS)
    plain = f"the {form} of {giver} in the colour of {tint}"
    forms = (plain, plain, f"{giver} in the colour of {tint}", f"{giver} coloured like {tint}",
             f"the {form} of {giver} with the colour of {tint}",
             f"take the {form} from {giver} and the colour from {tint}",
             f"{giver}'s {form} in {tint}'s colour", f"paint {giver} in the colour of {tint}",
             f"use the colour of {tint} for the {form} of {giver}",
             f"the colour of {tint} on the {form} of {giver}",
             f"in the colour of {tint} , the {form} of {giver}",
             f"recolour {giver} with the colour of {tint}")  # fmt: skip
    return one_of(rng, forms)


REFERENCE_SUBJECTS: dict[str, Callable[[Request, Rng], str]] = {
    "ref colour": coloured_like,
    "ref shape": shaped_like,
    "ref keep": kept,
    "ref both": mixed,
}
