"""Every hostile file, by name."""

from __future__ import annotations

from tests.hostile.case import Case
from tests.hostile.jpeg_cases import jpeg_cases
from tests.hostile.other_cases import other_cases
from tests.hostile.png_cases import png_cases
from tests.hostile.slow_cases import slow_cases
from tests.hostile.webp_cases import webp_cases

MAX_FILE_BYTES = 10_485_760


def corpus() -> list[Case]:
    """All of them; nothing is made before it is asked for."""
    return [*other_cases(), *png_cases(), *jpeg_cases(), *webp_cases(), *slow_cases()]


def case(name: str) -> Case:
    """One of them. Raises KeyError."""
    return {known.name: known for known in corpus()}[name]
