"""Which model is next, over hours of simulated work."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from umrgen_infer.schedule import choose_models

MAX_WAIT_S = 30.0


def choose(waiting_s: dict[str, float], free: list[str], since_load_s: float = 1e9, load_s: float = 0.0) -> list[str]:
    return sorted(choose_models(waiting_s, free, since_load_s, load_s, MAX_WAIT_S))


def test_all_loaded_models_are_served_alike() -> None:
    assert choose({"a": 1, "b": 500}, ["a", "b"]) == ["a", "b"]
    assert choose({"b": 500}, ["a", "b"]) == ["b"]
    assert choose({}, ["a", "b"]) == []


def test_a_model_is_loaded_when_no_loaded_one_has_work() -> None:
    assert choose({"b": 0.1}, ["a"], since_load_s=0, load_s=60) == ["b"]
    assert choose({"b": 0.1, "c": 0.2}, ["a"]) == ["c"]


def test_a_loaded_model_keeps_its_work_until_another_has_waited_long_enough() -> None:
    assert choose({"a": 100, "b": 29.9}, ["a"]) == ["a"]
    assert choose({"a": 100, "b": 30}, ["a"]) == ["b"]
    assert choose({"a": 100, "b": 40, "c": 41}, ["a"]) == ["c"]


def test_what_was_just_loaded_has_its_share_first() -> None:
    assert choose({"a": 1, "b": 400}, ["a"], since_load_s=29) == ["a"]
    assert choose({"a": 1, "b": 400}, ["a"], since_load_s=30) == ["b"]
    assert choose({"a": 1, "b": 400, "c": 300}, ["a"], since_load_s=15) == ["b"]
    assert choose({"a": 1, "b": 400}, ["a"], since_load_s=30, load_s=60) == ["a"]


@dataclass
class Box:
    """One card that holds `room` models, and agents that keep every queue filled as the test says."""

    room: int
    run_s: float
    load_s: float
    now: float = 0.0
    loaded: list[str] = field(default_factory=list)
    loaded_at: float = -1e9
    loads: int = 0
    painted_s: float = 0.0
    waits: dict[str, list[float]] = field(default_factory=dict)
    queues: dict[str, deque[float]] = field(default_factory=dict)
    left_at: dict[str, float] = field(default_factory=dict)

    def submit(self, model: str, at: float) -> None:
        self.queues.setdefault(model, deque()).append(at)

    def step(self) -> None:
        """Run the next job, or let a second pass."""
        heads = {m: max(q[0], self.left_at.get(m, 0.0)) for m, q in self.queues.items() if q and q[0] <= self.now}
        waiting = {m: self.now - since for m, since in heads.items()}
        took = self.load_s if self.loads else 0.0
        models = choose_models(waiting, self.loaded, self.now - self.loaded_at, took, MAX_WAIT_S)
        if not models:
            self.now += 1
            return
        model = min(models, key=lambda m: self.queues[m][0])
        submitted = self.queues[model].popleft()
        if model not in self.loaded:
            if len(self.loaded) == self.room:
                self.left_at[self.loaded.pop(0)] = self.now
            self.now += self.load_s
            self.loads += 1
            self.loaded_at = self.now
            self.loaded.append(model)
        else:
            self.loaded.remove(model)
            self.loaded.append(model)
        self.waits.setdefault(model, []).append(self.now - submitted)
        self.now += self.run_s
        self.painted_s += self.run_s


@pytest.mark.parametrize("models", [2, 3, 5])
@pytest.mark.parametrize("load_s", [0.5, 5.0, 20.0])
def test_models_that_push_each_other_out_never_spend_most_of_the_time_on_loading(models: int, load_s: float) -> None:
    box = Box(room=1, run_s=0.7, load_s=load_s)
    for number in range(20_000):  # everybody has more work than can be done
        box.submit(f"m{number % models}", 0.0)
    while box.now < 3600:
        box.step()
    assert box.painted_s / box.now >= 0.49
    assert box.painted_s / box.now >= 1 - 1.1 * load_s * (models - 1) / MAX_WAIT_S - 0.01
    assert len(box.waits) == models


@pytest.mark.parametrize("models", [2, 3, 5])
def test_a_lone_job_of_an_absent_model_waits_no_longer_than_promised(models: int) -> None:
    """But for the run that is under way, and the loads and runs of those whose turn it is before."""
    box = Box(room=1, run_s=2.0, load_s=3.0)
    for number in range(5000):
        box.submit("busy", number * 0.5)
    for round_ in range(20):
        for other in range(models - 1):
            box.submit(f"rare{other}", 61.0 + round_ * 120 + other)
    while box.now < 2500:
        box.step()
    bound_s = MAX_WAIT_S + models * (box.run_s + box.load_s)
    for other in range(models - 1):
        waits = box.waits[f"rare{other}"]
        assert len(waits) == 20
        assert max(waits) <= bound_s


def test_with_more_work_than_can_be_done_each_model_has_its_turn_within_the_promised_wait() -> None:
    box = Box(room=1, run_s=1.0, load_s=2.0)
    for number in range(30_000):
        box.submit(f"m{number % 3}", 0.0)
    turns: dict[str, list[float]] = {}
    while box.now < 3600:
        loads = box.loads
        box.step()
        if box.loads > loads:
            turns.setdefault(box.loaded[0], []).append(box.now)
    for times in turns.values():
        between = [later - earlier for earlier, later in pairwise(times)]
        assert max(between[1:]) <= MAX_WAIT_S + MAX_WAIT_S / 2 + 3 * (box.run_s + box.load_s)
    assert len({len(times) // 2 for times in turns.values()}) == 1


def test_models_that_fit_together_are_each_loaded_once() -> None:
    box = Box(room=2, run_s=1.0, load_s=10.0)
    for number in range(1000):
        box.submit("ab"[number % 2], number * 1.0)
    while box.now < 1000:
        box.step()
    assert box.loads == 2
