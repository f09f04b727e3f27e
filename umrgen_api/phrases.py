"""Finds listed phrases in the readings of a text: a few look-ups a word, however long the lists."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from umrgen_api.readings import (
    NO_WORD,
    START_CHARS,
    Forms,
    Reading,
    Text,
    cut_words,
    is_unspaced,
    join_unspaced,
    strip_marks,
)

Phrase = tuple[str, ...]
"""Words in order; "*" at a word's end stands for any further letters."""

JOINED_CHARS = 7
"""A phrase with as many letters is also found when it is written as one word."""

_NUMBERS = re.compile(r"<(\d{1,3})-(\d{1,3})>")


class Phrases:
    """A set of phrases, ready to be searched for."""

    def __init__(self, phrases: Iterable[str]) -> None:
        self._by_start: dict[str, list[Phrase]] = defaultdict(list)
        self._alike: dict[tuple[str, int], set[str]] = defaultdict(set)
        self._unspaced: list[str] = []
        for phrase in dict.fromkeys(expanded for written in phrases for expanded in expand(written)):
            self._add(phrase)

    def _add(self, phrase: str) -> None:
        if is_unspaced(strip_marks(phrase)):
            self._unspaced.append(join_unspaced(strip_marks(phrase)))
            return
        words = tuple(cut_words(phrase))
        joined = "".join(word.rstrip("*") for word in words[:-1]) + words[-1]
        self._by_start[start_of(words[0])].append(words)
        if len(words) == 1:
            self._alike[joined[0], len(joined)].add(joined)
        elif len(joined) >= JOINED_CHARS:
            self._by_start[start_of(joined)].append((joined,))

    def are_in(self, text: Text) -> bool:
        """Whether any phrase stands in any reading of `text`."""
        if text.unspaced and any(phrase in text.unspaced for phrase in self._unspaced):
            return True
        if any(next(self._find_spelled(row), None) for row in text.rows):
            return True
        if not text.masked and self._by_start.keys().isdisjoint(text.starts):  # as of most texts
            return False
        return any(next(self._find(reading), None) for reading in text.readings)

    def cut_from(self, text: Text) -> Text:
        """`text` without these phrases; what stood around one does not come together."""
        unspaced = text.unspaced
        for phrase in self._unspaced:
            unspaced = unspaced.replace(phrase, " ")
        return Text(tuple(map(self._cut, text.readings)), tuple(map(self._cut_row, text.rows)), unspaced)

    def _cut(self, reading: Reading) -> Reading:
        places = {place for start, length in self._find(reading) for place in range(start, start + length)}
        return [NO_WORD if place in places else forms for place, forms in enumerate(reading)] if places else reading

    def _find(self, reading: Reading) -> Iterator[tuple[int, int]]:
        """(place, number of words) of every phrase."""
        for place, forms in enumerate(reading):
            for form in forms:
                for phrase in self._by_start.get(form[:START_CHARS], ()):
                    if _is_like(form, phrase[0]) and _follows(phrase, reading, place):
                        yield place, len(phrase)
                if "*" in form and self._is_masked(form):
                    yield place, 1

    def _find_spelled(self, row: str) -> Iterator[tuple[int, int]]:
        """(place, letters) of every listed word that a row of single letters spells."""
        for place in range(len(row) - START_CHARS + 1):
            for phrase in self._by_start.get(row[place : place + START_CHARS], ()):
                word = phrase[0].rstrip("*")
                if len(phrase) == 1 and row.startswith(word, place):
                    yield place, len(word)

    def _cut_row(self, row: str) -> str:
        letters = list(row)
        for place, length in self._find_spelled(row):
            letters[place : place + length] = " " * length
        return "".join(letters)

    def _is_masked(self, form: str) -> bool:
        """Whether a form with masked letters may be a listed word: at least half of it and its first letter stand."""
        if form.count("*") * 2 > len(form):
            return False
        return any(
            all(masked in ("*", letter) for masked, letter in zip(form, word, strict=True))
            for word in self._alike.get((form[0], len(form)), ())
        )


def start_of(word: str) -> str:
    """What a listed word is looked up by."""
    return word.rstrip("*")[:START_CHARS]


def expand(phrase: str) -> list[str]:
    """A phrase with every number of a range such as <1-17> in its place."""
    found = _NUMBERS.search(phrase)
    if found is None:
        return [phrase]
    return [
        phrase[: found.start()] + str(number) + phrase[found.end() :]
        for number in range(int(found[1]), int(found[2]) + 1)
    ]


def _follows(phrase: Phrase, reading: Sequence[Forms], place: int) -> bool:
    """Whether the words of `phrase` after its first stand in `reading` after `place`."""
    if len(phrase) == 1:
        return True
    following = reading[place + 1 : place + len(phrase)]
    if len(following) < len(phrase) - 1:
        return False
    return all(any(_is_like(form, word) for form in forms) for forms, word in zip(following, phrase[1:], strict=True))


def _is_like(form: str, word: str) -> bool:
    return form.startswith(word[:-1]) if word.endswith("*") else form == word
