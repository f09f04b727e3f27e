from __future__ import annotations

import asyncio

import pytest

from benchmarks.figure import Figure, Judged, Plan, take_percentile
from benchmarks.rounds import alternate, alternate_async


def test_a_ratio_is_taken_round_by_round_and_judged_by_its_median() -> None:
    figure = Figure("x", "x", "ms", [10, 40, 30], [10, 10, 10], bar=2.9)
    assert figure.samples == [1, 4, 3]
    assert figure.median == 3
    assert figure.ok is False
    assert Figure("x", "x", "ms", [10, 40, 30], [10, 10, 10], bar=3.0).ok is True


def test_a_floor_is_met_from_above_and_a_figure_without_a_bar_is_not_judged() -> None:
    assert Figure("x", "x", "/s", [8], [10], bar=0.8, at_least=True).ok is True
    assert Figure("x", "x", "/s", [7], [10], bar=0.8, at_least=True).ok is False
    assert Figure("x", "x", "/s", [7], [10]).ok is None


def test_a_difference_and_a_bare_value_can_be_judged_too() -> None:
    assert Figure("x", "x", "ms", [50], [20], Judged.DIFFERENCE).samples == [30]
    assert Figure("x", "x", "ms", [50], [20], Judged.VALUE).samples == [50]


def test_rounds_that_do_not_pair_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        _ = Figure("x", "x", "ms", [1, 2], [1]).samples


@pytest.mark.parametrize(("percent", "value"), [(0, 1), (50, 50), (50.1, 51), (99, 99), (99.1, 100), (100, 100)])
def test_so_many_of_a_hundred_do_not_exceed_their_percentile(percent: float, value: int) -> None:
    assert take_percentile(list(range(100, 0, -1)), percent) == value


def test_a_percentile_is_a_value_that_was_measured_however_few_they_are() -> None:
    assert [take_percentile([7], percent) for percent in (0, 50, 99, 100)] == [7, 7, 7, 7]
    assert take_percentile(range(1, 1001), 99.9) == 999


def test_a_plan_scales_counts_but_never_to_nothing(tmp_path) -> None:
    plan = Plan(tmp_path, scale=0.01)
    assert plan.count(5000) == 50
    assert plan.count(100, least=3) == 3
    assert plan.seconds(1.0, least=0.5) == 0.5


def test_ways_take_turns_in_turned_order_and_the_first_round_does_not_count() -> None:
    calls: list[str] = []

    def call(name: str) -> int:
        calls.append(name)
        return len(calls)

    taken = alternate(2, {"a": lambda: call("a"), "b": lambda: call("b")})
    assert calls == ["a", "b", "b", "a", "a", "b"]
    assert taken == {"a": [4, 5], "b": [3, 6]}


def test_coroutines_take_turns_likewise() -> None:
    calls: list[str] = []

    async def call(name: str) -> int:
        calls.append(name)
        return len(calls)

    taken = asyncio.run(alternate_async(1, {"a": lambda: call("a"), "b": lambda: call("b")}))
    assert calls == ["a", "b", "b", "a"]
    assert taken == {"a": [4], "b": [3]}
