"""What a run will take of the device's memory, learnt from what earlier runs took."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from umrgen_core.profiles import MIN_SIDE_PX, ModelProfile, RenderSize
from umrgen_infer.painter import Commission

RECENT_RUNS = 64
MARGIN = 1.03
"""A run is predicted to fit only with this much to spare: allocators round up and leave holes."""
SHORTAGE_KEPT_S = 600.0
"""A run that did not fit is forgotten after this time: what else was on the device may be gone."""


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """Bytes of a device: taken by whoever it is, and all there are."""

    used_bytes: int
    total_bytes: int


ReadMemory = Callable[[], DeviceMemory | None]
"""Reads the device's memory in the painting thread; None where there is no memory of its own."""


def read_nothing() -> None:
    """A ReadMemory for devices whose memory nobody measures."""


class DoesNotFit(Exception):
    """A commission has no room. `largest` is the size that has, with the same references; None where unknown."""

    def __init__(self, largest: RenderSize | None) -> None:
        super().__init__("out of memory")
        self.largest = largest


def count_pixels(commission: Commission) -> int:
    """What the memory of a run grows with: the pixels that are painted and those of the references."""
    return commission.width * commission.height + count_reference_pixels(commission)


def count_reference_pixels(commission: Commission) -> int:
    """The pixels of a commission's references, as the model is given them."""
    return sum(image.width * image.height for image in commission.references)


@dataclass(frozen=True, slots=True)
class _Shortage:
    """A run that did not fit into so much."""

    pixels: int
    room_bytes: int
    kept_until_s: float


class PeakLine:
    """The peak memory of one model's recent runs as a line over pixels. Never falls with more pixels."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._runs: deque[tuple[int, int]] = deque(maxlen=RECENT_RUNS)
        self._shortages: deque[_Shortage] = deque(maxlen=RECENT_RUNS)

    def learn(self, pixels: int, peak_bytes: int) -> None:
        """A run of so many pixels took so much."""
        self._runs.append((pixels, peak_bytes))

    def learn_shortage(self, pixels: int, room_bytes: int) -> None:
        """A run of so many pixels did not fit into so much."""
        self._shortages.append(_Shortage(pixels, room_bytes, self._now_s() + SHORTAGE_KEPT_S))

    def predict_bytes(self, pixels: int) -> int:
        """What a run will take at most, as far as anything is known; 0 where nothing is."""
        known = [one.room_bytes + 1 for one in self._list_shortages() if one.pixels <= pixels]
        line = self._fit()
        if line is not None:
            known.append(int(line[0] + line[1] * pixels))
        known += [peak_bytes for seen, peak_bytes in self._runs if seen <= pixels]
        return max(known, default=0)

    def find_most_pixels(self, room_bytes: int) -> int | None:
        """The most pixels whose run fits into so much; None when too little is known to say."""
        line = self._fit()
        if line is not None and line[1] > 0:
            most = int((room_bytes / MARGIN - line[0]) / line[1])
        else:
            most = max((pixels for pixels, peak_bytes in self._runs if peak_bytes <= room_bytes), default=-1)
        too_many = (one.pixels for one in self._list_shortages() if one.room_bytes >= room_bytes)
        most = min(most, *(pixels - 1 for pixels in too_many), most)
        return most if most >= 0 else None

    def _list_shortages(self) -> list[_Shortage]:
        now_s = self._now_s()
        return [one for one in self._shortages if one.kept_until_s > now_s]

    def _fit(self) -> tuple[float, float] | None:
        """Base and slope by least squares, lifted until no run lies above; None for runs of fewer than two sizes."""
        runs = self._runs
        if len({pixels for pixels, _ in runs}) < 2:
            return None
        mean_pixels = sum(pixels for pixels, _ in runs) / len(runs)
        mean_bytes = sum(peak_bytes for _, peak_bytes in runs) / len(runs)
        shared = sum((pixels - mean_pixels) * (peak_bytes - mean_bytes) for pixels, peak_bytes in runs)
        slope = max(shared / sum((pixels - mean_pixels) ** 2 for pixels, _ in runs), 0.0)
        return max(peak_bytes - slope * pixels for pixels, peak_bytes in runs), slope


class Admission:
    """How one model's commissions fit into the memory that they may take."""

    def __init__(self, profile: ModelProfile, now_s: Callable[[], float]) -> None:
        self._profile = profile
        self._lines = {lean: PeakLine(now_s) for lean in (False, True)}

    def learn(self, commission: Commission, peak_bytes: int, *, lean: bool) -> None:
        """A run took so much."""
        self._lines[lean].learn(count_pixels(commission), peak_bytes)

    def learn_shortage(self, commission: Commission, room_bytes: int, *, lean: bool) -> None:
        """A run that had so much for itself did not fit."""
        self._lines[lean].learn_shortage(count_pixels(commission), room_bytes)

    def choose(self, commission: Commission, room_bytes: int) -> tuple[bool, int]:
        """Whether to paint lean, and the bytes that it will take, 0 where unknown. Raises DoesNotFit.

        What nothing is known about is tried: memory that runs out is an answer, too.
        """
        pixels = count_pixels(commission)
        usual = self._lines[False].predict_bytes(pixels)
        if usual * MARGIN <= room_bytes:
            return False, int(usual * MARGIN)
        lean = self._lines[True].predict_bytes(pixels)
        if lean > room_bytes:
            raise DoesNotFit(self.find_largest(commission, room_bytes))
        return True, int(lean * MARGIN)

    def find_largest(self, commission: Commission, room_bytes: int) -> RenderSize | None:
        """The largest size of the same shape that fits with the same references, as far as that is known."""
        if self._profile.native_px is not None:
            return None
        known = (self._lines[lean].find_most_pixels(room_bytes) for lean in (True, False))
        pixels = next((pixels for pixels in known if pixels is not None), None)
        if pixels is None:
            return None
        return _shrink(commission, pixels - count_reference_pixels(commission), self._profile.multiple_px)


def _shrink(commission: Commission, area_px: int, multiple_px: int) -> RenderSize | None:
    """The commission's shape with at most so many pixels; None when a side would be too short."""
    scale = min((max(area_px, 0) / (commission.width * commission.height)) ** 0.5, 1.0)
    width, height = (int(side * scale) // multiple_px * multiple_px for side in (commission.width, commission.height))
    return RenderSize(width=width, height=height) if min(width, height) >= MIN_SIDE_PX else None
