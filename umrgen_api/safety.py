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
    kept = "".join(" " if c in "\n\r\t" else c for c in decomposed if c in "\n\r\t" or _kept(c))
    return _NOT_WORD.sub(" ", kept).strip()


def _kept(character: str) -> bool:
    return unicodedata.category(character) not in _DROPPED


def load_prompt_check(folder: Path = LISTS_FOLDER) -> PromptCheck:
    """Read every list in `folder`. Raises ConfigError for one that cannot be used."""
    return PromptCheck([_load_category(path) for path in sorted(folder.glob("*.toml"))])


def _load_category(path: Path) -> Category:
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
        combinations = [tuple(_pattern(words) for words in parts) for parts in tree.get("combinations", [])]
        return Category(
            tree["category"],
            _pattern(tree.get("words", [])),
            _pattern(tree.get("allow", [])),
            tuple(tuple(part for part in parts if part) for parts in combinations),
        )
    except (tomllib.TOMLDecodeError, KeyError, TypeError, AttributeError, OSError) as error:
        raise ConfigError(f"{path}: not a safety list ({error!r}); it needs 'category' and 'words'") from None


def _pattern(phrases: Iterable[str]) -> re.Pattern[str] | None:
    folded = sorted({fold(phrase) for phrase in phrases}, key=len, reverse=True)
    if not folded:
        return None
    return re.compile(r"\b(?:" + "|".join(re.escape(phrase) for phrase in folded) + r")\b")
