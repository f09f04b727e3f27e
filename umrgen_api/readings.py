"""The ways in which a person would read a text, disguised or not, for matching it against word lists.

A text is cut into words, and each word is given all the forms that it may stand for: as written, with
look-alike letters of other scripts made Latin, with digits and signs read as letters, with drawn-out
letters shortened. Signs inside a word either part it or belong to it, so there is a reading for each;
letters that stand alone in a row are joined in a third.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from anyascii import anyascii
from confusable_homoglyphs import confusables

Forms = tuple[str, ...]
"""What one word may stand for, lower case; "*" in a form is a masked letter."""
Reading = list[Forms]

START_CHARS = 3
"""Phrases are looked up by this many letters; a word that "*" continues has at least as many."""

NO_WORD: Forms = ()
"""Parts phrases: nothing matches across it."""

# Indic and South-East Asian scripts spell vowels with marks; elsewhere marks only decorate.
_SPELLING_MARKS = re.compile("[\u0900-\u0dff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3099\u309a]")
_LETTER = "[^\\W\\d_\u0964\u0965]|[\u0900-\u0963\u0971-\u0de5\u0df2\u0df3\u0e00-\u0e4e\u1000-\u103f]"
_PIECE = re.compile(rf"(?:{_LETTER})+|\d+")
_LETTERS_AND_MASKS = re.compile(rf"{_LETTER}|\*")
# Cut at spaces, brackets, quotes and what else parts phrases; CJK punctuation is U+3001 to U+3011 and U+FF01 to U+FF1F.
_CHUNK = re.compile('[^\\s,;:()\\[\\]{}<>"/\\\\\u00ab\u00bb\u201c-\u201f\u3001-\u3011\u30fb\uff01-\uff1f]+')
_UNSPACED = re.compile("[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3\uf900-\ufaff\u1100-\u11ff]")
_DRAWN_OUT = re.compile(r"(.)\1{2,}")
_EDGE_SIGNS = "!?.*'`~-_+^&%#=|@$\u20ac\u00a3\u00b4\u2013\u2014\u2018\u2019"
_SIGNS_FOR_LETTERS = {"0": "o", "3": "e", "4": "a", "5": "s", "6": "g", "7": "t", "8": "b", "9": "g", "@": "a",
                      "$": "s", "\u20ac": "e", "\u00a3": "l", "\u00a2": "c"}  # fmt: skip
_WITH_I = str.maketrans(_SIGNS_FOR_LETTERS | dict.fromkeys("1!|", "i"))
_WITH_L = str.maketrans(_SIGNS_FOR_LETTERS | dict.fromkeys("1!|", "l"))

ROW_LETTERS = 3
"""So many single letters in a row may spell a word."""
MAX_EXPANSION = 4
"""A character that stands for more letters than these is left as it is: a prompt must not grow without bound."""
MAX_SOUND = 6
"""The same for its sound in Latin letters, which is a syllable at most."""


@dataclass(frozen=True, slots=True)
class Text:
    """A text in all its readings.

    `rows` are letters that stand alone one after the other, joined: a word may begin and end anywhere in
    them. `unspaced` is the text without separators, where a script has no spaces. `starts` are the first letters of
    every form, by which phrases are looked up; `masked` tells whether any form has masked letters.
    """

    readings: tuple[Reading, ...]
    rows: tuple[str, ...]
    unspaced: str
    starts: frozenset[str] = field(init=False)
    masked: bool = field(init=False)

    def __post_init__(self) -> None:
        """Gather what most look-ups are answered from."""
        words = {form for reading in self.readings for forms in reading for form in forms}
        object.__setattr__(self, "starts", frozenset(word[:START_CHARS] for word in words))
        object.__setattr__(self, "masked", any("*" in word for word in words))


def read_text(text: str) -> Text:
    """Every reading of `text`, which may hold any characters at all."""
    plain = strip_marks(text)
    chunks = _CHUNK.findall(plain)
    written = [_forms(piece) for chunk in chunks for piece in _split(chunk)]
    readings = [written]
    if not all(map(_is_plain_word, chunks)):
        readings.append([_forms_of_whole(chunk) for chunk in chunks])
    joined = list(_find_rows(written))
    rows = tuple(dict.fromkeys(row for _, row in joined if row))
    if rows:
        readings.append([(row,) if row else forms for forms, row in joined])
    return Text(tuple(readings), rows, join_unspaced(plain))


def cut_words(phrase: str) -> list[str]:
    """The words of a listed phrase, as the first reading cuts them; "*" at a word's end is kept."""
    words: list[str] = []
    for chunk in re.findall(r"[^\s]+", strip_marks(phrase)):
        pieces = [piece.casefold() for piece in _PIECE.findall(chunk)]
        if pieces and chunk.endswith("*"):
            pieces[-1] += "*"
        words += pieces
    return words


def strip_marks(text: str) -> str:
    """`text` with compatible characters made one, and without marks and invisible characters; case stays."""
    if text.isascii() and text.isprintable():
        return text
    decomposed = unicodedata.normalize("NFKD", text)
    if len(decomposed) > 2 * len(text):
        decomposed = "".join(map(_decompose, text))
    kept = "".join(" " if c.isspace() else c for c in decomposed if c.isspace() or _is_kept(c))
    return unicodedata.normalize("NFC", kept)


def is_unspaced(text: str) -> bool:
    """Whether `text` holds a script that is written without spaces, so that words have no edges."""
    return not text.isascii() and _UNSPACED.search(text) is not None


def join_unspaced(plain: str) -> str:
    """All letters in one, where a script is written without spaces; else nothing."""
    return "".join(_PIECE.findall(plain.casefold())) if is_unspaced(plain) else ""


def _decompose(character: str) -> str:
    decomposed = unicodedata.normalize("NFKD", character)
    return decomposed if len(decomposed) <= MAX_EXPANSION else character


def _is_kept(character: str) -> bool:
    category = unicodedata.category(character)
    if category in ("Mn", "Me"):
        return _SPELLING_MARKS.match(character) is not None
    return category not in ("Cf", "Cc")


def _split(chunk: str) -> Iterator[str]:
    """The words of a chunk: apart at signs, between letters and digits, and where the case rises."""
    for piece in _PIECE.findall(chunk):
        if piece.islower() or piece.isupper() or piece.istitle():
            yield piece
        else:
            yield from _split_camel(piece)


def _split_camel(piece: str) -> Iterator[str]:
    start = 0
    for place in range(1, len(piece)):
        rises = piece[place].isupper() and not piece[place - 1].isupper()
        ends_capitals = (
            piece[place].isupper()
            and piece[place - 1].isupper()
            and place + 1 < len(piece)
            and piece[place + 1].islower()
        )
        if rises or ends_capitals:
            yield piece[start:place]
            start = place
    yield piece[start:]


def _is_plain_word(chunk: str) -> bool:
    """Whether a chunk is a word and nothing else, apart from signs at its end."""
    word = chunk.rstrip(".!?*'")
    return word.isalpha() and (word.islower() or word.istitle())


def _forms(piece: str) -> Forms:
    word = piece.casefold()
    if word.isascii() and not _DRAWN_OUT.search(word):
        return (word,)
    return _vary((word,))


def _forms_of_whole(chunk: str) -> Forms:
    """A chunk as one word, its signs and digits read as letters."""
    if chunk.isalpha():
        return _forms(chunk)
    folded = chunk.casefold()
    if not any(map(str.isalpha, folded)):
        return NO_WORD
    read: dict[str, None] = {}
    for form in (folded.strip(_EDGE_SIGNS), folded):
        for table in (_WITH_I, _WITH_L):
            read["".join(_LETTERS_AND_MASKS.findall(form.translate(table)))] = None
    return _vary(tuple(read))


def _vary(forms: Forms) -> Forms:
    varied: dict[str, None] = {}
    for form in forms:
        for script in (form,) if form.isascii() else (form, _to_look_alikes(form), "".join(map(_to_sound, form))):
            varied[script] = None
            varied[_DRAWN_OUT.sub(r"\1", script)] = None
            varied[_DRAWN_OUT.sub(r"\1\1", script)] = None
    return tuple(varied)


def _to_look_alikes(word: str) -> str:
    return "".join(c if c.isascii() else _to_latin(c) for c in word)


@lru_cache(maxsize=4096)
def _to_latin(character: str) -> str:
    """The Latin letter that a character looks like, by Unicode's list of confusables; else its sound."""
    for found in confusables.is_confusable(character, greedy=True, preferred_aliases=["latin"]) or ():
        for candidate in found["homoglyphs"]:
            if candidate["c"].isascii() and candidate["c"].isalpha():
                return str(candidate["c"]).casefold()
    return _to_sound(character)


@lru_cache(maxsize=4096)
def _to_sound(character: str) -> str:
    """A character in Latin letters; itself where that would be a whole phrase."""
    sound = anyascii(character).casefold()
    return sound if len(sound) <= MAX_SOUND else character


def _find_rows(written: Reading) -> Iterator[tuple[Forms, str]]:
    """The words in order, with every row of three or more single letters as one: (NO_WORD, the letters)."""
    row: list[Forms] = []
    for forms in [*written, NO_WORD]:
        if forms and len(forms[-1]) == 1:
            row.append(forms)
            continue
        if len(row) >= ROW_LETTERS:
            yield NO_WORD, "".join(letter[-1] for letter in row).translate(_WITH_I)
        else:
            yield from ((letter, "") for letter in row)
        row = []
        if forms:
            yield forms, ""
