"""One hostile file: how it is made and what must become of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class Fate(StrEnum):
    """What must become of a file."""

    TAKEN = "taken"
    """It is a picture within the limits, however odd: a clean copy is stored."""
    HEADER = "refused from its header"
    """No decoder sees it."""
    DECODER = "refused by the decoder"
    """Its header is that of a picture, the rest is not."""
    LIMIT = "stopped by a limit"
    """Only the limit on processor time or memory ends it."""


@dataclass(frozen=True, slots=True)
class Case:
    """A named file; `make` gives the same bytes every time."""

    name: str
    extension: str
    fate: Fate
    make: Callable[[], bytes]
    slow: bool = False
    """Costs more than about a second of one core: left to the benchmark, but for a few."""

    @property
    def filename(self) -> str:
        """A name for the file on disk."""
        return "".join(c if c.isalnum() else "-" for c in self.name.lower()) + "." + self.extension


def taken(name: str, extension: str, make: Callable[[], bytes], *, slow: bool = False) -> Case:
    """A file that must be taken."""
    return Case(name, extension, Fate.TAKEN, make, slow)


def header(name: str, extension: str, make: Callable[[], bytes], *, slow: bool = False) -> Case:
    """A file that must be refused before it is decoded."""
    return Case(name, extension, Fate.HEADER, make, slow)


def decoder(name: str, extension: str, make: Callable[[], bytes], *, slow: bool = False) -> Case:
    """A file that the decoder must refuse."""
    return Case(name, extension, Fate.DECODER, make, slow)


def limit(name: str, extension: str, make: Callable[[], bytes]) -> Case:
    """A file that only a limit ends; all of them are slow."""
    return Case(name, extension, Fate.LIMIT, make, slow=True)
