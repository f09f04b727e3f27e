"""References that were decoded once are not read again, whoever asks for them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conftest import picture_bytes
from umrgen_core.config import Settings
from umrgen_core.errors import RunError
from umrgen_core.files import FileStore, Shelf
from umrgen_core.jobs import Pin
from umrgen_core.profiles import ModelProfile, ReferencesAs, RenderSize
from umrgen_infer.reference_cache import ReferenceCache

SIDE_PX = 64
PICTURE_BYTES = SIDE_PX * SIDE_PX * 3
SIZE = RenderSize(width=128, height=96)
WAIT_S = 10.0


class CountingStore(FileStore):
    """The real store, which counts its reads and may be held up."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings.storage.data_dir)
        self.reads: list[str] = []
        self.reading = threading.Event()
        self.gate = threading.Event()
        self.gate.set()

    def read(self, shelf: Shelf, disk_name: str) -> bytes:
        self.reads.append(disk_name)
        self.reading.set()
        assert self.gate.wait(WAIT_S)
        return super().read(shelf, disk_name)


@pytest.fixture
def files(settings: Settings) -> CountingStore:
    store = CountingStore(settings)
    store.prepare()
    return store


@pytest.fixture
def pin(files: FileStore) -> Callable[..., Pin]:
    def publish(seed: int, name: str = "", position: int = 0) -> Pin:
        disk_name = name or f"{seed}.png"
        published = files.publish_bytes(Shelf.REFERENCES, disk_name, picture_bytes(SIDE_PX, SIDE_PX, seed=seed))
        return Pin(position, 1, None, disk_name, published.sha256, published.bytes)

    return publish


@pytest.fixture
def profile() -> ModelProfile:
    return ModelProfile(pipeline="p", path="x", references_as=ReferencesAs.LIST, references=4)


@pytest.fixture
def cache() -> ReferenceCache:
    return ReferenceCache(10 * PICTURE_BYTES)


def test_a_jobs_references_come_in_its_order(
    cache: ReferenceCache, files: CountingStore, pin: Callable[..., Pin], profile: ModelProfile
) -> None:
    a, b = pin(1), pin(2)
    forth, back = cache.load(files, (a, b), profile, SIZE), cache.load(files, (b, a), profile, SIZE)
    assert forth == back[::-1]
    assert forth[0] != forth[1]
    assert cache.load(files, (), profile, SIZE) == ()


def test_the_same_content_is_read_once_under_whatever_name(
    cache: ReferenceCache, files: CountingStore, pin: Callable[..., Pin], profile: ModelProfile
) -> None:
    (first,) = cache.load(files, (pin(1),), profile, SIZE)
    again = cache.load(files, (pin(1, "copy.png"), pin(1)), profile, SIZE)
    assert again == (first, first)
    assert files.reads == ["1.png"]
    assert cache.kept_bytes == PICTURE_BYTES


def test_another_fit_of_the_same_picture_is_another_entry(
    cache: ReferenceCache, files: CountingStore, pin: Callable[..., Pin], profile: ModelProfile
) -> None:
    small = profile.model_copy(update={"reference_area_px": 32 * 32})
    start = profile.model_copy(update={"references_as": ReferencesAs.STRENGTH})
    reference = (pin(1),)
    assert [cache.load(files, reference, wanted, SIZE)[0].size for wanted in (profile, small, start)] == [
        (64, 64),
        (32, 32),
        (128, 96),
    ]
    cache.load(files, reference, profile, RenderSize(width=512, height=512))  # the painted size plays no part here
    assert len(files.reads) == 3
    assert cache.load(files, reference, start, RenderSize(width=64, height=128))[0].size == (64, 128)


def test_the_picture_used_least_recently_makes_room(
    files: CountingStore, pin: Callable[..., Pin], profile: ModelProfile
) -> None:
    cache, pins = ReferenceCache(2 * PICTURE_BYTES), [pin(seed) for seed in range(3)]
    for which in (0, 1, 0, 2, 0):  # 2 takes the place of 1
        cache.load(files, (pins[which],), profile, SIZE)
    assert files.reads == ["0.png", "1.png", "2.png"]
    cache.load(files, (pins[1],), profile, SIZE)
    assert files.reads[3:] == ["1.png"]
    assert cache.kept_bytes == 2 * PICTURE_BYTES


@pytest.mark.parametrize("budget_bytes", [0, PICTURE_BYTES - 1])
def test_without_room_for_a_picture_every_job_reads_its_own(
    files: CountingStore, pin: Callable[..., Pin], profile: ModelProfile, budget_bytes: int
) -> None:
    cache = ReferenceCache(budget_bytes)
    for _ in range(2):
        cache.load(files, (pin(1),), profile, SIZE)
    assert len(files.reads) == 2
    assert cache.kept_bytes == 0


def test_what_was_prefetched_is_not_read_again_and_what_could_not_be_is_told_by_the_job(
    cache: ReferenceCache, files: CountingStore, pin: Callable[..., Pin], profile: ModelProfile
) -> None:
    lost, there = pin(1), pin(2, position=1)
    files.delete(Shelf.REFERENCES, "1.png")
    cache.prefetch(files, (lost, there), profile, SIZE)
    assert files.reads == ["1.png", "2.png"]
    cache.load(files, (there,), profile, SIZE)
    assert len(files.reads) == 2
    with pytest.raises(RunError, match="Reference 1") as refused:
        cache.load(files, (lost, there), profile, SIZE)
    assert refused.value.error_code == "invalid_reference"
    (again,) = cache.load(files, (pin(1),), profile, SIZE)  # an error is not kept
    assert again.size == (SIDE_PX, SIDE_PX)


def test_two_threads_that_want_the_same_picture_decode_it_once(
    cache: ReferenceCache, files: CountingStore, pin: Callable[..., Pin], profile: ModelProfile
) -> None:
    reference = (pin(1),)
    files.gate.clear()
    with ThreadPoolExecutor(4) as threads:
        first = threads.submit(cache.load, files, reference, profile, SIZE)
        assert files.reading.wait(WAIT_S)
        others = [threads.submit(cache.load, files, reference, profile, SIZE) for _ in range(3)]
        files.gate.set()
        pictures = {id(job.result(WAIT_S)[0]) for job in [first, *others]}
    assert len(pictures) == 1
    assert files.reads == ["1.png"]


def test_a_thread_that_waits_for_anothers_failure_tells_its_own(
    cache: ReferenceCache, files: CountingStore, pin: Callable[..., Pin], profile: ModelProfile
) -> None:
    first, second = pin(1), pin(1, "copy.png", position=1)
    files.delete(Shelf.REFERENCES, "1.png")
    files.gate.clear()
    with ThreadPoolExecutor(2) as threads:
        doomed = threads.submit(cache.load, files, (first,), profile, SIZE)
        assert files.reading.wait(WAIT_S)
        other = threads.submit(cache.load, files, (second,), profile, SIZE)
        files.gate.set()
        with pytest.raises(RunError, match="Reference 1"):
            doomed.result(WAIT_S)
        assert other.result(WAIT_S)[0].size == (SIDE_PX, SIDE_PX)


def test_many_threads_over_few_pictures_keep_to_the_budget(
    files: CountingStore, pin: Callable[..., Pin], profile: ModelProfile
) -> None:
    cache, pins = ReferenceCache(3 * PICTURE_BYTES), [pin(seed) for seed in range(6)]
    wanted = {which: cache.load(files, (pins[which],), profile, SIZE)[0].tobytes() for which in range(6)}

    def work(seed: int) -> bool:
        order = [(seed * 7 + step * 5) % 6 for step in range(40)]
        return all(cache.load(files, (pins[which],), profile, SIZE)[0].tobytes() == wanted[which] for which in order)

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(work, range(8)))
    assert cache.kept_bytes == 3 * PICTURE_BYTES
