"""Puts a request into words: templates by composition, synonyms, any order, idle words."""

import zlib

from training import words
from training.phrases import Rng, colour_word, noun_phrase, one_of, placed
from training.reference_captions import REFERENCE_SUBJECTS
from training.request import Request, WantedBackdrop

HELD_OUT_SHARE = 16  # one caption in so many is never trained on


def is_held_out(caption: str) -> bool:
    """Whether a caption is kept for evaluation."""
    return zlib.crc32(caption.encode()) % HELD_OUT_SHARE == 0


def caption(request: Request, rng: Rng, *, held_out: bool) -> str:
    """One wording of the request, drawn from the held-out or from the training wordings."""
    while True:
        text = " ".join(_sentence(request, rng).split())
        if is_held_out(text) == held_out:
            return text


def _sentence(request: Request, rng: Rng) -> str:
    if _says_nothing(request):
        return " ".join(rng.choice(words.NOISE_WORDS, int(rng.integers(2, 9))))
    subject = REFERENCE_SUBJECTS.get(request.kind, _subject)(request, rng)
    text = _with_backdrop(subject, request.backdrop, rng)
    if rng.random() < 0.25:
        text = f"{one_of(rng, words.OPENINGS)} {text}"
    if rng.random() < 0.15:
        text = f"{text}{one_of(rng, (', ', ' '))}{one_of(rng, words.CLOSINGS)}"
    if rng.random() < 0.06:
        text = f"{text} {' '.join(rng.choice(words.NOISE_WORDS, int(rng.integers(1, 4))))}"
    return text


def _says_nothing(request: Request) -> bool:
    wanted = request.things[0]
    said = wanted.size or wanted.place or request.backdrop
    return len(request.things) == 1 and wanted.shape.is_open and wanted.colour.is_open and not said


def _subject(request: Request, rng: Rng) -> str:
    wanted = request.things[0]
    text = placed(noun_phrase(wanted, request.style, rng, wanted.colour), wanted, rng)
    if len(request.things) == 1:
        return text
    other = request.things[1]
    second = noun_phrase(other, "flat", rng, other.colour)
    if request.relation == "inside" and rng.random() < 0.3:
        return one_of(rng, (f"{second} containing {text}", f"{second} with {text} inside"))
    relation = one_of(rng, words.RELATION_WORDS[request.relation])
    if request.relation and rng.random() < 0.1:  # the other one first
        return f"{relation} {second} {one_of(rng, ('is', 'there is', 'put', ','))} {text}"
    verb = one_of(rng, ("is", "sits", "placed", "which is")) if request.relation else ""
    return f"{text} {verb if rng.random() < 0.2 else ''} {relation} {second}"


def _with_backdrop(subject: str, backdrop: WantedBackdrop | None, rng: Rng) -> str:
    if backdrop is None:
        return subject
    ground = one_of(rng, ("background", "background", "background", "backdrop", "canvas"))
    first = colour_word(backdrop.first, rng)
    if backdrop.kind == "plain":
        front = f"{one_of(rng, ('', '', '', 'plain', 'solid'))} {first} {ground}"
        if rng.random() < 0.08:
            return f"a {front} {one_of(rng, ('with', 'and', ',', 'behind'))} {subject}"
        forms: tuple[str, ...] = (
            f"on a {front}", f"on a {front}", f"on {first}", f"with a {front}", f", {front}",
            f"against a {front}", f"the {ground} is {first}", f", {ground} {first}",
        )  # fmt: skip
    else:
        second = colour_word(backdrop.second or backdrop.first, rng)
        pair, run = f"{first} and {second}", f"{first} to {second}"
        forms = {
            "gradient": (f"on a {run} gradient", f"on a {pair} gradient {ground}",
                         f"with a gradient from {run}"),
            "stripes": (f"on a {pair} striped {ground}", f"on {pair} stripes",
                        f"with {pair} stripes"),
            "checker": (f"on a {pair} checkered {ground}", f"on a {pair} checkerboard",
                        f"on a {pair} checked {ground}"),
        }[backdrop.kind]  # fmt: skip
    text = one_of(rng, forms)
    if rng.random() < 0.15 and text.startswith("on"):
        return f"{text}{one_of(rng, (', ', ' '))}{subject}"
    return f"{subject} {text}"
