"""Turn and turn about: what is compared is measured in the same run, so that other work hits both."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

T = TypeVar("T")


def alternate(rounds: int, ways: Mapping[str, Callable[[], T]]) -> dict[str, list[T]]:
    """What each way gave in each round: A B, A B, … One round before them warms up and does not count."""
    taken: dict[str, list[T]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, way in ways.items():
            taken[name].append(way())
    return {name: results[1:] for name, results in taken.items()}


async def alternate_async(rounds: int, ways: Mapping[str, Callable[[], Awaitable[T]]]) -> dict[str, list[T]]:
    """The same with coroutines."""
    taken: dict[str, list[T]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, way in ways.items():
            taken[name].append(await way())
    return {name: results[1:] for name, results in taken.items()}
