"""Turn and turn about: what is compared is measured in the same run, so that other work hits both.

Every other round goes the other way: what each way leaves behind (caches, clocks, a disk at work) is met by both.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")


def alternate(rounds: int, ways: Mapping[str, Callable[[], T]]) -> dict[str, list[T]]:
    """What each way gave in each round: A B, B A, … One round before them warms up and does not count."""
    taken: dict[str, list[T]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name in _order(ways, number):
            taken[name].append(ways[name]())
    return {name: results[1:] for name, results in taken.items()}


async def alternate_async(rounds: int, ways: Mapping[str, Callable[[], Awaitable[T]]]) -> dict[str, list[T]]:
    """The same with coroutines."""
    taken: dict[str, list[T]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name in _order(ways, number):
            taken[name].append(await ways[name]())
    return {name: results[1:] for name, results in taken.items()}


def _order(names: Iterable[str], number: int) -> list[str]:
    forth = list(names)
    return forth[::-1] if number % 2 else forth
