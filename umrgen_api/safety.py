"""The prompt check: whether what an agent asks for holds blocked keywords.

The lists are TOML files, one a category, each with its languages' own words. A text is matched in every
way that a person would read it (umrgen_api.readings), by whole words, so that innocent words which
merely hold a blocked one pass. All languages' lists hold for every text.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from umrgen_api.phrases import Phrases, expand
from umrgen_api.readings import START_CHARS, Text, cut_words, is_unspaced, read_text, strip_marks
from umrgen_core.agents import ALWAYS_CHECKED
from umrgen_core.errors import ConfigError, SafetyViolation

SHIPPED_LISTS = Path(__file__).parent / "safety"
ANOTHER_LIST = "@"
"""Begins the name of another category, all of whose words are meant."""


def _require_word(phrase: str) -> str:
    if not all(cut_words(one) or is_unspaced(strip_marks(one)) for one in expand(phrase)):
        raise ValueError("a phrase needs a letter or a digit")
    words = [word for one in expand(phrase) for word in cut_words(one)]
    if any(word.endswith("*") and len(word) <= START_CHARS for word in words):
        raise ValueError(f'{phrase!r}: "*" needs {START_CHARS} letters before it')
    return phrase


Listed = Annotated[str, AfterValidator(_require_word)]
ByLanguage = dict[str, Annotated[list[Listed], Field(min_length=1)]]


class SafetyList(BaseModel):
    """One file: `words` block, `allow` is cut out first; a combination blocks when each of its groups is there."""

    model_config = ConfigDict(extra="forbid", strict=True)

    words: ByLanguage = {}
    allow: ByLanguage = {}
    combinations: dict[str, Annotated[dict[str, ByLanguage], Field(min_length=2)]] = {}

    @model_validator(mode="after")
    def _blocks_something(self) -> SafetyList:
        if not self.words and not self.combinations:
            raise ValueError("it needs words or combinations")
        return self

    def joined_with(self, other: SafetyList) -> SafetyList:
        """Both lists' phrases as one list."""
        return SafetyList(
            words=_join(self.words, other.words),
            allow=_join(self.allow, other.allow),
            combinations=self.combinations | other.combinations,
        )


@dataclass(frozen=True, slots=True)
class Category:
    """One list, ready for matching."""

    name: str
    blocked: Phrases
    allowed: Phrases
    combinations: tuple[tuple[Phrases, ...], ...]

    def matches(self, text: Text) -> bool:
        """Whether `text` is blocked."""
        # Most texts hold nothing that is listed: only for the others is it worth looking for what is allowed.
        return self._is_listed(text) and self._is_listed(self.allowed.cut_from(text))

    def _is_listed(self, text: Text) -> bool:
        return self.blocked.are_in(text) or any(
            all(group.are_in(text) for group in groups) for groups in self.combinations
        )


class PromptCheck:
    """Checks texts against the categories."""

    def __init__(self, categories: Iterable[Category]) -> None:
        self._categories = sorted(categories, key=lambda category: (category.name != ALWAYS_CHECKED, category.name))

    @property
    def categories(self) -> list[str]:
        """Their names."""
        return [category.name for category in self._categories]

    def check(self, field: str, text: str, off: frozenset[str] = frozenset()) -> None:
        """Raise SafetyViolation, naming `field` and the category, when `text` is blocked.

        Categories in `off` are left out, but never the one that concerns minors.
        """
        if not text:
            return
        read = read_text(text)
        for category in self._categories:
            if (category.name == ALWAYS_CHECKED or category.name not in off) and category.matches(read):
                raise SafetyViolation(field, category.name)


def load_prompt_check(own: Path | None = None, shipped: Path = SHIPPED_LISTS) -> PromptCheck:
    """The shipped lists, with those of the owner's folder `own` beside or in place of them.

    A file of the owner's replaces the shipped one of its name, but for the category that is always
    checked: to that one it adds. Raises ConfigError for a list that cannot be used and a folder without any.
    """
    ours = _read_folder(shipped)
    theirs = _read_folder(own) if own else {}
    joined = {name: _join_lists(ours.get(name), theirs.get(name)) for name in {**ours, **theirs}}
    lists = {**ours, **theirs}
    if ALWAYS_CHECKED in joined:
        lists[ALWAYS_CHECKED] = joined[ALWAYS_CHECKED]
    # What the owner takes out of another list is still sexual where a minor is concerned.
    return PromptCheck(_build(name, lists[name], joined if name == ALWAYS_CHECKED else lists) for name in lists)


def _read_folder(folder: Path) -> dict[str, SafetyList]:
    lists = {path.stem: _read(path) for path in sorted(folder.glob("*.toml"))}
    if not lists:
        raise ConfigError(f"{folder}: holds no safety list (*.toml)")
    return lists


def _read(path: Path) -> SafetyList:
    try:
        return SafetyList.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (ValueError, OSError) as error:  # pydantic, tomllib and the codec raise kinds of ValueError
        raise ConfigError(f"{path}: not a safety list ({error})") from None


def _join_lists(one: SafetyList | None, other: SafetyList | None) -> SafetyList:
    both = [listed for listed in (one, other) if listed is not None]
    return both[0] if len(both) == 1 else both[0].joined_with(both[1])


def _build(name: str, listed: SafetyList, lists: Mapping[str, SafetyList]) -> Category:
    combinations = tuple(
        tuple(Phrases(_resolve(name, group, lists)) for group in groups.values())
        for groups in listed.combinations.values()
    )
    return Category(name, Phrases(_resolve(name, listed.words, lists)), Phrases(_all(listed.allow)), combinations)


def _resolve(name: str, phrases: ByLanguage, lists: Mapping[str, SafetyList]) -> Iterable[str]:
    """All phrases, with another category's words where "@category" stands."""
    for phrase in _all(phrases):
        if not phrase.startswith(ANOTHER_LIST):
            yield phrase
        elif phrase[1:] in lists and phrase[1:] != name:
            yield from (one for one in _all(lists[phrase[1:]].words) if not one.startswith(ANOTHER_LIST))
        else:
            raise ConfigError(f"safety list {name!r}: {phrase!r} names no other category; there are {sorted(lists)}")


def _all(phrases: ByLanguage) -> Iterable[str]:
    return (phrase for listed in phrases.values() for phrase in listed)


def _join(one: ByLanguage, other: ByLanguage) -> ByLanguage:
    return {language: [*one.get(language, ()), *other.get(language, ())] for language in {**one, **other}}
