"""The prompt check: whether what an agent asks for holds blocked keywords.

The lists are in safety/*.toml, a file for each category. Text is folded first (NFKC, case, marks and
invisible characters away), then matched at word boundaries, so that innocent words which merely hold
a blocked one pass.
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from umrgen_core.errors import ConfigError, SafetyViolation

LISTS_FOLDER = Path(__file__).parent / "safety"

_DROPPED = frozenset({"Cf", "Mn", "Me", "Cc"})
_NOT_WORD = re.compile(r"[\W_]+")


@dataclass(frozen=True, slots=True)
class Category:
    """One list: phrases that block, phrases that are cut out first, and combinations."""

    name: str
    blocked: re.Pattern[str] | None
    allowed: re.Pattern[str] | None
    combinations: tuple[tuple[re.Pattern[str], ...], ...]

    def matches(self, text: str) -> bool:
        """Whether folded `text` is blocked."""
        if self.allowed is not None:
            text = self.allowed.sub(" ", text)
        if self.blocked is not None and self.blocked.search(text):
            return True
        return any(all(part.search(text) for part in parts) for parts in self.combinations)


class PromptCheck:
    """Checks texts against every category."""

    def __init__(self, categories: Sequence[Category]) -> None:
        self._categories = categories

    def check(self, field: str, text: str) -> None:
        """Raise SafetyViolation, naming `field` and the category, when `text` is blocked."""
        folded = fold(text)
        for category in self._categories:
            if category.matches(folded):
                raise SafetyViolation(field, category.name)


def fold(text: str) -> str:
    """`text` in the form that the lists are matched in: plain lower-case words, one space between."""
    decomposed = unicodedata.normalize("NFKD", text).casefold()
    kept = "".join(" " if c.isspace() else c for c in decomposed if c.isspace() or _kept(c))
    return _NOT_WORD.sub(" ", kept).strip()


def _kept(character: str) -> bool:
    return unicodedata.category(character) not in _DROPPED


def load_prompt_check(folder: Path = LISTS_FOLDER) -> PromptCheck:
    """Read every list in `folder`. Raises ConfigError for one that cannot be used, and where there is none."""
    categories = [_load_category(path) for path in sorted(folder.glob("*.toml"))]
    if not categories:
        raise ConfigError(f"{folder}: holds no safety list (*.toml)")
    return PromptCheck(categories)


def _require_word(phrase: str) -> str:
    if not fold(phrase):
        raise ValueError("a phrase needs a letter or a digit")
    return phrase


Phrase = Annotated[str, AfterValidator(_require_word)]
Phrases = Annotated[list[Phrase], Field(min_length=1)]


class SafetyList(BaseModel):
    """A file of the folder."""

    model_config = ConfigDict(extra="forbid", strict=True)

    category: Annotated[str, Field(min_length=1)]
    words: list[Phrase] = []
    allow: list[Phrase] = []
    combinations: list[Annotated[list[Phrases], Field(min_length=1)]] = []

    @model_validator(mode="after")
    def _blocks_something(self) -> SafetyList:
        if not self.words and not self.combinations:
            raise ValueError("it needs words or combinations")
        return self


def _load_category(path: Path) -> Category:
    try:
        listed = SafetyList.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (ValueError, OSError) as error:  # pydantic, tomllib and the codec raise kinds of ValueError
        raise ConfigError(f"{path}: not a safety list ({error})") from None
    combinations = tuple(tuple(filter(None, map(_pattern, parts))) for parts in listed.combinations)
    return Category(listed.category, _pattern(listed.words), _pattern(listed.allow), combinations)


def _pattern(phrases: Iterable[str]) -> re.Pattern[str] | None:
    folded = sorted({fold(phrase) for phrase in phrases}, key=len, reverse=True)
    if not folded:
        return None
    return re.compile(r"\b(?:" + "|".join(re.escape(phrase) for phrase in folded) + r")\b")
