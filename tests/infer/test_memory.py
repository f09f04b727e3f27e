from __future__ import annotations

import pytest
from PIL import Image

from tests.conftest import FakeClock
from umrgen_core.profiles import ModelProfile
from umrgen_infer.memory import SHORTAGE_KEPT_S, Admission, DoesNotFit, PeakLine
from umrgen_infer.painter import Commission

GB = 10**9
WEIGHTS = 16 * GB
BYTES_A_PIXEL = 4000
LEAN_BYTES_A_PIXEL = 2000
PROFILE = ModelProfile(pipeline="P", path="p", references_as="list", references=4)


def commission(width: int, height: int, *references: tuple[int, int]) -> Commission:
    images = tuple(Image.new("RGB", size) for size in references)
    return Commission("", "", width, height, 4, 0, images)


def peak(side: int, *, lean: bool = False) -> int:
    return WEIGHTS + side * side * (LEAN_BYTES_A_PIXEL if lean else BYTES_A_PIXEL)


@pytest.fixture
def line(clock: FakeClock) -> PeakLine:
    return PeakLine(lambda: clock.boot / 1000)


@pytest.fixture
def admission(clock: FakeClock) -> Admission:
    return Admission(PROFILE, lambda: clock.boot / 1000)


@pytest.fixture
def learned(admission: Admission) -> Admission:
    """One that has seen two sizes both ways."""
    for side in (512, 1024):
        for lean in (False, True):
            admission.learn(commission(side, side), peak(side, lean=lean), lean=lean)
    return admission


def test_nothing_is_predicted_before_anything_was_measured(line: PeakLine) -> None:
    assert line.predict_bytes(10**9) == 0
    assert line.find_most_pixels(10**12) is None


def test_two_sizes_predict_every_other(line: PeakLine) -> None:
    for side in (512, 1024):
        line.learn(side * side, peak(side))
    for side in (64, 768, 2048):
        assert line.predict_bytes(side * side) == pytest.approx(peak(side), rel=1e-6)


def test_a_prediction_is_never_below_what_was_measured(line: PeakLine) -> None:
    measured = [(1000, 500), (2000, 900), (3000, 700), (4000, 1500), (2000, 1100)]
    for pixels, peak_bytes in measured:
        line.learn(pixels, peak_bytes)
    assert all(line.predict_bytes(pixels) >= peak_bytes for pixels, peak_bytes in measured)


@pytest.mark.parametrize("peaks", [(9, 7, 5), (5, 9, 5), (1, 2, 9), (5, 5, 5)])
def test_more_pixels_are_never_predicted_to_take_less(line: PeakLine, peaks: tuple[int, ...]) -> None:
    for number, peak_bytes in enumerate(peaks):
        line.learn((number + 1) * 1000, peak_bytes * 1000)
    predicted = [line.predict_bytes(pixels) for pixels in range(0, 8000, 250)]
    assert predicted == sorted(predicted)


def test_one_size_tells_nothing_about_smaller_ones_and_a_least_about_larger_ones(line: PeakLine) -> None:
    line.learn(1000, 700)
    assert [line.predict_bytes(pixels) for pixels in (999, 1000, 5000)] == [0, 700, 700]
    assert line.find_most_pixels(700) == 1000


def test_only_the_recent_runs_count(line: PeakLine) -> None:
    for side in (512, 1024):
        line.learn(side * side, 100 * GB)
    for number in range(64):
        side = (512, 1024)[number % 2]
        line.learn(side * side, peak(side))
    assert line.predict_bytes(1024 * 1024) == pytest.approx(peak(1024), rel=1e-6)


def test_what_did_not_fit_is_not_tried_again_for_a_while(line: PeakLine, clock: FakeClock) -> None:
    line.learn_shortage(1000, 500)
    assert [line.predict_bytes(pixels) for pixels in (999, 1000, 2000)] == [0, 501, 501]
    clock.advance(SHORTAGE_KEPT_S)
    assert line.predict_bytes(2000) == 0


def test_the_largest_that_fits_is_smaller_than_what_did_not(line: PeakLine) -> None:
    line.learn(500, 100)
    line.learn_shortage(1000, 5000)
    assert line.find_most_pixels(5000) == 500
    line.learn(600, 110)
    assert line.find_most_pixels(5000) == 999
    assert line.find_most_pixels(10**6) > 999  # there was less room then


def test_references_count_like_painted_pixels(learned: Admission) -> None:
    room = int(peak(1024) * 1.05)
    assert learned.choose(commission(1024, 1024), room)[0] is False
    assert learned.choose(commission(1024, 512, (512, 1024)), room)[0] is False
    assert learned.choose(commission(1024, 1024, (1024, 1024)), room)[0] is True


def test_what_will_not_fit_is_painted_lean_at_once_and_what_will_not_even_then_fails_at_once(
    learned: Admission,
) -> None:
    room = 24 * GB
    assert learned.choose(commission(1024, 1024), room) == (False, pytest.approx(peak(1024) * 1.03, rel=1e-6))
    assert learned.choose(commission(1600, 1600), room) == (True, pytest.approx(peak(1600, lean=True) * 1.03, rel=1e-6))
    with pytest.raises(DoesNotFit) as shortage:
        learned.choose(commission(2048, 2048), room)
    largest = shortage.value.largest
    assert largest is not None
    assert largest.width == largest.height
    assert learned.choose(commission(largest.width, largest.height), room)[0] is True
    assert peak(largest.width + 64, lean=True) * 1.03 > room


def test_what_is_not_known_is_tried(admission: Admission) -> None:
    assert admission.choose(commission(2048, 2048), 1) == (False, 0)
    admission.learn_shortage(commission(2048, 2048), 20 * GB, lean=False)
    assert admission.choose(commission(2048, 2048), 20 * GB) == (True, 0)


def test_the_largest_size_keeps_the_shape_and_the_references(learned: Admission) -> None:
    largest = learned.find_largest(commission(2048, 1024, (1024, 1024)), 19 * GB)
    assert largest is not None
    assert largest.width / largest.height == pytest.approx(2, rel=0.1)
    assert (largest.width % 16, largest.height % 16) == (0, 0)
    assert learned.find_largest(commission(2048, 1024, (1024, 1024)), WEIGHTS) is None


def test_a_model_of_one_size_has_no_larger_one_to_offer(clock: FakeClock) -> None:
    native = Admission(PROFILE.model_copy(update={"native_px": 64}), lambda: 0.0)
    native.learn(commission(64, 64), 1000, lean=True)
    assert native.find_largest(commission(64, 64), 5000) is None
