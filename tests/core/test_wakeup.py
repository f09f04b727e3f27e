from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from umrgen_core.wakeup import Listener, Wakeup

OpenWakeup = Callable[..., Wakeup]


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A folder whose sockets have paths too long for an address of 107 bytes."""
    deep = tmp_path / ("d" * 80) / ("e" * 80)
    deep.mkdir(parents=True)
    assert len(str(deep / "run" / "api-1.sock")) > 107
    return deep


@pytest.fixture
def open_wakeup(data_dir: Path) -> Iterator[OpenWakeup]:
    opened: list[Wakeup] = []

    def open_one(kind: Listener, process_id: str = "1") -> Wakeup:
        opened.append(Wakeup(data_dir, kind, process_id))
        return opened[-1]

    yield open_one
    for wakeup in opened:
        if (data_dir / "run" / wakeup._name).exists():
            wakeup.close()


async def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "nothing arrived"
        await asyncio.sleep(0.001)


def kill(wakeup: Wakeup) -> None:
    """What a kill -9 leaves behind: the name without the socket."""
    wakeup._socket.close()


async def test_a_hint_arrives_below_a_folder_with_a_long_path(open_wakeup: OpenWakeup) -> None:
    heard: list[str] = []
    api, infer = open_wakeup(Listener.API), open_wakeup(Listener.INFER)
    infer.listen(heard.append)
    api.send(Listener.INFER, "ext_ü")
    await wait_until(lambda: heard == ["ext_ü"])


async def test_every_process_of_the_kind_is_woken_and_no_other(open_wakeup: OpenWakeup) -> None:
    heard: dict[str, list[str]] = {"api-1": [], "api-2": [], "infer-1": []}
    api, second, infer = open_wakeup(Listener.API), open_wakeup(Listener.API, "2"), open_wakeup(Listener.INFER)
    api.listen(heard["api-1"].append)
    second.listen(heard["api-2"].append)
    infer.listen(heard["infer-1"].append)
    infer.send(Listener.API, "one")
    infer.send(Listener.API, "two")
    await wait_until(lambda: heard["api-1"] == heard["api-2"] == ["one", "two"])
    api.send(Listener.INFER, "three")
    await wait_until(lambda: heard["infer-1"] == ["three"])
    assert heard["api-1"] == heard["api-2"] == ["one", "two"]


async def test_hints_that_were_sent_before_anybody_listened_are_heard(open_wakeup: OpenWakeup) -> None:
    heard: list[str] = []
    api, infer = open_wakeup(Listener.API), open_wakeup(Listener.INFER)
    api.send(Listener.INFER, "early")
    infer.listen(heard.append)
    await wait_until(lambda: heard == ["early"])


async def test_the_socket_of_a_dead_process_is_unlinked_by_whoever_is_refused(
    open_wakeup: OpenWakeup, data_dir: Path
) -> None:
    heard: list[str] = []
    api, dead, living = open_wakeup(Listener.API), open_wakeup(Listener.INFER, "dead"), open_wakeup(Listener.INFER)
    living.listen(heard.append)
    kill(dead)
    assert (data_dir / "run" / "infer-dead.sock").exists()
    api.send(Listener.INFER, "job")
    await wait_until(lambda: heard == ["job"])
    assert sorted(os.listdir(data_dir / "run")) == ["api-1.sock", "infer-1.sock"]


def test_a_listener_that_never_reads_neither_blocks_nor_fails_the_sender(open_wakeup: OpenWakeup) -> None:
    api = open_wakeup(Listener.API)
    open_wakeup(Listener.INFER)
    for _ in range(5000):  # far more than a socket holds
        api.send(Listener.INFER, "x" * 1000)


def test_nobody_there_is_no_error(open_wakeup: OpenWakeup, data_dir: Path) -> None:
    api = open_wakeup(Listener.API)
    (data_dir / "run" / "infer-not-a-socket.sock").write_text("")
    (data_dir / "run" / "infer-notes.txt").write_text("")
    api.send(Listener.INFER, "job")
    assert (data_dir / "run" / "infer-notes.txt").exists()


async def test_a_closed_end_leaves_no_socket_and_hears_no_more(open_wakeup: OpenWakeup, data_dir: Path) -> None:
    heard: list[str] = []
    api, infer = open_wakeup(Listener.API), open_wakeup(Listener.INFER)
    infer.listen(heard.append)
    infer.close()
    api.send(Listener.INFER, "late")
    assert os.listdir(data_dir / "run") == ["api-1.sock"]
    await asyncio.sleep(0)
    assert heard == []


def test_the_descriptors_are_closed_in_children(open_wakeup: OpenWakeup) -> None:
    api = open_wakeup(Listener.API)
    assert not os.get_inheritable(api._socket.fileno())
    assert not os.get_inheritable(api._folder_fd)


async def test_a_hint_that_cannot_be_sent_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> list[str]:
        raise OSError(24, "Too many open files")

    wakeup = Wakeup(tmp_path, Listener.API, "a")
    monkeypatch.setattr("os.listdir", refuse)
    wakeup.send(Listener.INFER, "queued")
    wakeup.close()
