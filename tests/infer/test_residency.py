"""Which models stay loaded, what is tried when memory is short, and what a model that cannot be loaded costs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.conftest import FakeClock, make_settings
from umrgen_core.config import Settings
from umrgen_core.errors import ConfigError, RunError
from umrgen_infer.lease import RunStopped, StopReason
from umrgen_infer.memory import DeviceMemory, DoesNotFit
from umrgen_infer.painter import Commission, DeviceLost, OnStep, OutOfMemory, Painting
from umrgen_infer.residency import FIRST_PAUSE_S, LONGEST_PAUSE_S, Residency

GB = 10**9
CARD = 24 * GB
A_PIXEL = 4000
A_LEAN_PIXEL = 2000


class Card:
    """A device of 24 GB whose memory the painters below take, and that fails like a real one."""

    def __init__(self) -> None:
        self.weights = dict.fromkeys("abc", 10 * GB)
        self.loaded: list[Painter] = []
        self.log: list[str] = []
        self.load_errors: list[Exception] = []
        self.broken = False

    def load(self, model: str) -> Painter:
        self.log.append(f"load {model}")
        if self.load_errors:
            raise self.load_errors.pop(0)
        if self.used() + self.weights[model] > CARD:
            raise OutOfMemory
        painter = Painter(self, model)
        self.loaded.append(painter)
        return painter

    def used(self) -> int:
        return sum(self.weights[painter.model] for painter in self.loaded)

    def read(self) -> DeviceMemory:
        return DeviceMemory(self.used(), CARD)


class Painter:
    """Takes memory for each pixel, less when lean."""

    def __init__(self, card: Card, model: str) -> None:
        self.card = card
        self.model = model

    def close(self) -> None:
        self.card.log.append(f"close {self.model}")
        self.card.loaded.remove(self)

    def paint(self, commission: Commission, on_step: OnStep, *, lean: bool = False) -> Painting:
        self.card.log.append(f"paint {self.model}{' lean' if lean else ''}")
        pixels = commission.width * commission.height
        peak = self.card.used() + pixels * (A_LEAN_PIXEL if lean else A_PIXEL)
        if peak > CARD:
            raise OutOfMemory
        on_step(commission.steps)
        return Painting(Image.new("RGB", (8, 8)), {"denoise": 1.0}, {"attention": "native"}, peak)


def commission(side: int = 512) -> Commission:
    return Commission("", "", side, side, 4, 0, ())


def quiet(_: int) -> None:
    pass


@pytest.fixture
def card() -> Card:
    return Card()


@pytest.fixture
def configure(tmp_path: Path) -> Callable[..., Settings]:
    """Settings that serve the models a, b and c, which say what they take only where `declared`."""

    def make(declared: int = 0, **infer: Any) -> Settings:
        profile = {"pipeline": "P", "path": "p", "memory_bytes": declared}
        return make_settings(  # over a folder that is there: no store is needed
            tmp_path, models=dict.fromkeys("abc", profile), infer={"models": ["a", "b", "c"], **infer}
        )

    return make


@pytest.fixture
def residency(configure: Callable[..., Settings], clock: FakeClock, card: Card) -> Residency:
    return Residency(configure(), clock, card.load, card.read)


# What stays loaded


def test_a_model_is_loaded_when_it_is_first_asked_for_and_then_stays(residency: Residency, card: Card) -> None:
    residency.load("a")
    for model in "abab":
        residency.paint(model, commission(), quiet)
    assert card.log == ["load a", "paint a", "load b", "paint b", "paint a", "paint b"]
    assert residency.resident == ("a", "b")


def test_the_least_recently_used_one_makes_room(
    configure: Callable[..., Settings], clock: FakeClock, card: Card
) -> None:
    residency = Residency(configure(declared=10 * GB), clock, card.load, card.read)
    for model in "abac":
        residency.paint(model, commission(), quiet)
    assert card.log[-3:] == ["close b", "load c", "paint c"]
    assert residency.resident == ("a", "c")


def test_room_is_made_before_the_load_where_the_size_is_known(
    configure: Callable[..., Settings], clock: FakeClock, card: Card
) -> None:
    residency = Residency(configure(declared=10 * GB), clock, card.load, card.read)
    for model in "abc":
        residency.paint(model, commission(), quiet)
    assert card.log == ["load a", "paint a", "load b", "paint b", "close a", "load c", "paint c"]


def test_where_no_size_is_known_a_load_that_fails_for_want_of_room_is_tried_again_alone(
    residency: Residency, card: Card
) -> None:
    card.weights["c"] = 20 * GB
    for model in "abc":
        residency.paint(model, commission(64), quiet)
    assert card.log[-5:] == ["load c", "close a", "close b", "load c", "paint c"]


def test_the_setting_bounds_what_stays_loaded(configure: Callable[..., Settings], clock: FakeClock, card: Card) -> None:
    residency = Residency(configure(memory_bytes=15 * GB), clock, card.load, card.read)
    for model in "ab":
        residency.paint(model, commission(), quiet)
    assert residency.resident == ("b",)


def test_without_a_measure_and_a_limit_everything_stays(
    configure: Callable[..., Settings], clock: FakeClock, card: Card
) -> None:
    card.weights = dict.fromkeys("abc", GB)
    residency = Residency(configure(), clock, card.load)
    for model in "abc":
        residency.paint(model, commission(), quiet)
    assert residency.resident == ("a", "b", "c")
    assert "close" not in " ".join(card.log)


def test_the_time_of_a_load_is_told_and_a_cancel_is_heard_after_it(residency: Residency, card: Card) -> None:
    assert residency.paint("a", commission(), quiet).timings.keys() == {"denoise", "load_model"}
    assert residency.paint("a", commission(), quiet).timings.keys() == {"denoise"}

    def stop(_: int) -> None:
        raise RunStopped(StopReason.CANCELLED)

    with pytest.raises(RunStopped):
        residency.paint("b", commission(), stop)
    assert card.log[-1] == "load b"


# Memory that runs out


def test_what_does_not_fit_beside_others_is_tried_once_more_lean_and_alone(residency: Residency, card: Card) -> None:
    residency.paint("a", commission(), quiet)
    painting = residency.paint("b", commission(1200), quiet)
    assert card.log[-4:] == ["load b", "paint b", "close a", "paint b lean"]
    assert painting.ran_with == {"attention": "native", "lean": True}
    assert "lean" not in residency.paint("b", commission(), quiet).ran_with


def test_what_does_not_fit_even_lean_fails_with_the_largest_size_that_is_known_to_fit(
    residency: Residency, card: Card
) -> None:
    for side in (512, 1024):
        residency.paint("a", commission(side), quiet)
    with pytest.raises(DoesNotFit) as shortage:
        residency.paint("a", commission(2900), quiet)
    assert card.log[-1] == "paint a lean"  # how much a lean run takes was not known yet
    largest = shortage.value.largest
    assert largest is not None
    residency.paint("a", commission(largest.width), quiet)
    assert card.log[-1] == "paint a"


def test_once_it_is_known_what_runs_take_nothing_is_tried_in_vain(residency: Residency, card: Card) -> None:
    for side in (512, 1024, 2000, 2048):
        residency.paint("a", commission(side), quiet)
    assert card.log[-2:] == ["paint a lean", "paint a lean"]
    failed = card.log.count("paint a") - 2
    assert failed <= 1
    card.log.clear()
    residency.paint("a", commission(2300), quiet)
    assert card.log == ["paint a lean"]
    with pytest.raises(DoesNotFit) as shortage:
        residency.paint("a", commission(3000), quiet)
    assert card.log == ["paint a lean"]
    largest = shortage.value.largest
    assert largest is not None
    assert 2300 < largest.width < 3000
    residency.paint("a", commission(largest.width), quiet)
    assert card.log == ["paint a lean"] * 2


def test_others_make_room_for_a_run_that_is_known_to_need_it(residency: Residency, card: Card) -> None:
    for side in (512, 1024):
        residency.paint("a", commission(side), quiet)
    residency.paint("b", commission(), quiet)
    card.log.clear()
    residency.paint("a", commission(512), quiet)
    assert card.log == ["paint a"]
    residency.paint("a", commission(1600), quiet)
    assert card.log == ["paint a", "close b", "paint a"]


def test_what_runs_beside_others_take_is_told_apart_from_them(residency: Residency, card: Card) -> None:
    residency.paint("b", commission(64), quiet)
    for side in (256, 512):
        residency.paint("a", commission(side), quiet)
    card.log.clear()
    residency.paint("a", commission(1700), quiet)  # fits alone, as only the right figures tell
    assert card.log == ["close b", "paint a"]


def test_a_size_that_did_not_fit_is_tried_again_after_a_while(
    residency: Residency, card: Card, clock: FakeClock
) -> None:
    with pytest.raises(DoesNotFit) as shortage:
        residency.paint("a", commission(3000), quiet)
    assert shortage.value.largest is None
    tried = len(card.log)
    with pytest.raises(DoesNotFit):
        residency.paint("a", commission(3000), quiet)
    assert len(card.log) == tried
    card.weights["a"] = 0  # what else was there has gone
    clock.advance(600)
    residency.paint("a", commission(2400), quiet)


# Models that cannot be loaded


def test_a_model_that_cannot_be_loaded_fails_its_jobs_and_no_others(
    residency: Residency, card: Card, clock: FakeClock
) -> None:
    residency.load("a")
    card.load_errors = [ConfigError("no such folder")]
    with pytest.raises(RunError, match="b cannot be loaded") as failure:
        residency.paint("b", commission(), quiet)
    assert (failure.value.error_code, failure.value.retryable) == ("model_error", True)
    assert "folder" not in failure.value.message
    assert residency.find_broken() == {"b"}
    residency.paint("a", commission(), quiet)
    card.log.clear()
    with pytest.raises(RunError):
        residency.paint("b", commission(), quiet)
    assert card.log == []  # not tried again so soon
    clock.advance(FIRST_PAUSE_S)
    assert residency.find_broken() == frozenset()
    residency.paint("b", commission(), quiet)
    assert residency.resident == ("a", "b")


def test_the_pauses_between_tries_grow_and_stay_bounded(residency: Residency, card: Card, clock: FakeClock) -> None:
    pauses = []
    for _ in range(10):
        card.load_errors = [ConfigError("no such folder")]
        with pytest.raises(RunError):
            residency.paint("b", commission(), quiet)
        pauses.append(0)
        while residency.find_broken():
            clock.advance(1)
            pauses[-1] += 1
    assert pauses[:3] == [5, 10, 20]
    assert pauses[-1] == LONGEST_PAUSE_S


def test_the_first_model_that_cannot_be_loaded_is_told_as_it_is(residency: Residency, card: Card) -> None:
    card.load_errors = [ConfigError("no such folder")]
    with pytest.raises(ConfigError):
        residency.load("a")


def test_a_device_that_is_lost_during_a_load_ends_the_process_like_any_other_loss(
    residency: Residency, card: Card
) -> None:
    card.load_errors = [DeviceLost("gone")]
    with pytest.raises(DeviceLost):
        residency.paint("b", commission(), quiet)
