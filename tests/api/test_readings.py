from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umrgen_api.readings import cut_words, read_text, strip_marks


def can_be_read(text: str) -> set[str]:
    """Every form of every word, in any reading, and what rows of single letters spell."""
    read = read_text(text)
    spelled = {row[a:b] for row in read.rows for a in range(len(row)) for b in range(a + 1, len(row) + 1)}
    return spelled | {form for reading in read.readings for forms in reading for form in forms}


READ_AS = [
    ("s3x", "sex"),
    ("$ex", "sex"),
    ("5EX", "sex"),
    ("b!rd", "bird"),
    ("b1rd", "bird"),
    ("ba11", "ball"),
    ("h@te!", "hate"),
    ("booook", "book"),
    ("caaaat", "cat"),
    ("b.i.r.d", "bird"),
    ("b-i-r-d", "bird"),
    ("b i r d", "bird"),
    ("a big b  i  r  d sings", "bird"),
    ("bi-rd", "bird"),
    ("bi\u200brd", "bird"),
    ("bi\u00adrd", "bird"),
    ("b\u0301\u0327ird", "bird"),
    ("b\u0456rd", "bird"),  # Cyrillic dotted i
    ("\u1d03\u026a\u0280\u1d05", "bird"),  # small capitals
    ("\uff22\uff29\uff32\uff24", "bird"),
    ("\U0001d4eb\U0001d4f2\U0001d4fb\U0001d4ed", "bird"),
    ("redBird", "bird"),
    ("RedBirdSings", "bird"),
    ("REDBird", "bird"),
    ("#redBird", "bird"),
    ("13bird", "bird"),
    ("\u043f\u0442\u0438\u0446\u0430", "ptitsa"),  # by its sound
    ("\u043f\u0442\u0438\u0446\u0430", "\u043f\u0442\u0438\u0446\u0430"),
    ("STRASSE", "strasse"),
    ("stra\u00dfe", "strasse"),
    ("(bird:1.2)", "bird"),
    ("b*rd", "b*rd"),
]


@pytest.mark.parametrize(("text", "word"), READ_AS)
def test_a_disguised_word_can_be_read(text: str, word: str) -> None:
    assert word in can_be_read(text)


NOT_READ_AS = [
    ("the pen is here", "penis"),
    ("grapes", "rapes"),
    ("455", "ass"),
    ("an a b", "anab"),
    ("cock pit", "cockpit"),
    ("sub-zero, mega", "zeromega"),
]


@pytest.mark.parametrize(("text", "word"), NOT_READ_AS)
def test_words_are_not_made_from_parts_of_others(text: str, word: str) -> None:
    assert word not in can_be_read(text)


def test_a_plain_text_has_one_reading() -> None:
    assert read_text("a red bird sings").readings == ([("a",), ("red",), ("bird",), ("sings",)],)


def test_scripts_without_spaces_are_joined_and_others_are_not() -> None:
    assert read_text("\u9ce5 \u304c\u300c\u9cf4\u304f\u300d").unspaced == "\u9ce5\u304c\u9cf4\u304f"
    assert read_text("bird").unspaced == ""


def test_the_marks_that_spell_vowels_stay() -> None:
    assert strip_marks("\u092a\u0915\u094d\u0937\u0940") == "\u092a\u0915\u094d\u0937\u0940"
    assert strip_marks("\u3071\u3072\u3099") == "\u3071\u3073"


def test_a_listed_phrase_is_cut_as_a_text_is() -> None:
    assert cut_words("X-rated  Birds*") == ["x", "rated", "birds*"]


def test_a_text_does_not_grow_without_bound() -> None:
    for character in ("\ufdfa", "\u249c", "\ufb03", "\u33a8"):
        assert len(strip_marks(character * 2000)) <= 8000


@settings(derandomize=True, max_examples=300, deadline=None)
@given(st.text(max_size=2000))
def test_any_text_can_be_read(text: str) -> None:
    for reading in read_text(text).readings:
        assert all(form == form.casefold() for forms in reading for form in forms if form.isascii())
