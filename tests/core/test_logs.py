from __future__ import annotations

import io
import json
import logging
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from umrgen_core.logs import get_logger, log_path, set_up_logs
from umrgen_core.sections import LogSettings

PROCESS = "umrgen-test"


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("umrgen")
    before = list(root.handlers), root.level, ours.level
    yield
    for handler in root.handlers:
        if handler not in before[0]:
            handler.close()
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    ours.setLevel(before[2])
    structlog.reset_defaults()


def read_events(data_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log_path(data_dir, PROCESS).read_text().splitlines()]


def test_an_event_is_one_json_line_in_the_file_and_on_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up_logs(LogSettings(), tmp_path, PROCESS)
    get_logger("jobs").info("job_completed", job_id="ext_1", fence=2, duration_s=0.5)
    (event,) = read_events(tmp_path)
    assert event.pop("timestamp").endswith("Z")
    assert event == {"event": "job_completed", "level": "info", "job_id": "ext_1", "fence": 2, "duration_s": 0.5}
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["job_id"] == "ext_1"


def test_the_file_is_below_the_data_directory() -> None:
    assert log_path(Path("/data"), "umrgen-api") == Path("/data/log/umrgen-api.log")


@pytest.mark.parametrize("evil", ["a\nb", "a\r\nb", "\x1b[31mred", "\x00", "a\u2028b", '"}\n{"event": "forged"}'])
def test_no_value_can_forge_a_line_or_drive_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], evil: str
) -> None:
    set_up_logs(LogSettings(), tmp_path, PROCESS)
    get_logger("jobs").info("upload", filename=evil)
    text = log_path(tmp_path, PROCESS).read_text()
    assert len(text.splitlines()) == 1
    assert text.removesuffix("\n").isprintable()
    assert capsys.readouterr().err.removesuffix("\n").isprintable()
    assert json.loads(text)["filename"] == evil


def test_a_level_below_the_set_one_is_not_written(tmp_path: Path) -> None:
    set_up_logs(LogSettings(level="warning"), tmp_path, PROCESS)
    get_logger("jobs").info("quiet")
    get_logger("jobs").warning("loud")
    assert [event["event"] for event in read_events(tmp_path)] == ["loud"]


def test_warnings_of_libraries_are_kept_and_their_chatter_is_not(tmp_path: Path) -> None:
    set_up_logs(LogSettings(), tmp_path, PROCESS)
    logging.getLogger("aiohttp.server").info("chatter")
    logging.getLogger("aiohttp.server").warning("odd %s", "thing")
    (event,) = read_events(tmp_path)
    assert (event["event"], event["level"]) == ("odd thing", "warning")


def test_an_exception_is_told_within_its_line(tmp_path: Path) -> None:
    set_up_logs(LogSettings(), tmp_path, PROCESS)
    try:
        raise ValueError("broken")
    except ValueError:
        get_logger("jobs").exception("failed")
    (event,) = read_events(tmp_path)
    assert "ValueError: broken" in event["exception"]


@pytest.mark.parametrize("files", [2, 3])
def test_a_full_file_is_rotated_and_only_so_many_are_kept(tmp_path: Path, files: int) -> None:
    set_up_logs(LogSettings(file_bytes=2000, files=files), tmp_path, PROCESS)
    for number in range(200):
        get_logger("jobs").info("event", number=number)
    kept = list((tmp_path / "log").iterdir())
    assert len(kept) == files
    assert max(path.stat().st_size for path in kept) <= 2000
    assert read_events(tmp_path)[-1]["number"] == 199


def test_no_file_is_written_where_none_is_wanted(tmp_path: Path) -> None:
    set_up_logs(LogSettings(file_bytes=0), tmp_path, PROCESS)
    get_logger("jobs").error("event")
    assert not (tmp_path / "log").exists()


def test_setting_up_again_writes_no_event_twice(tmp_path: Path) -> None:
    set_up_logs(LogSettings(), tmp_path, PROCESS)
    set_up_logs(LogSettings(), tmp_path, PROCESS)
    get_logger("jobs").info("once")
    assert len(read_events(tmp_path)) == 1


def test_lines_of_many_threads_are_whole_and_none_is_lost_when_files_are_set_aside(tmp_path: Path) -> None:
    set_up_logs(LogSettings(file_bytes=400, files=150), tmp_path, PROCESS)

    def tell(thread: int) -> None:
        for number in range(50):
            get_logger("jobs").info("event", thread=thread, number=number)

    threads = [threading.Thread(target=tell, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = [line for path in (tmp_path / "log").iterdir() for line in path.read_text().splitlines()]
    told = {(event["thread"], event["number"]) for event in map(json.loads, lines)}
    assert len(lines) == len(told) == 200
    assert len(list((tmp_path / "log").iterdir())) > 2


def test_a_closed_stderr_costs_the_file_no_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    set_up_logs(LogSettings(), tmp_path, PROCESS)
    stream.close()
    get_logger("jobs").info("event")
    assert [event["event"] for event in read_events(tmp_path)] == ["event"]


def test_a_file_that_cannot_be_written_costs_stderr_no_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log_path(tmp_path, PROCESS).mkdir(parents=True)
    set_up_logs(LogSettings(), tmp_path, PROCESS)
    get_logger("jobs").info("event")
    assert json.loads(capsys.readouterr().err)["event"] == "event"


def test_a_librarys_warning_that_does_not_fit_its_format_troubles_nobody(tmp_path: Path) -> None:
    set_up_logs(LogSettings(), tmp_path, PROCESS)
    logging.getLogger("aiohttp.server").warning("%d", "not a number")
    logging.getLogger("aiohttp.server").warning("fine")
    assert [event["event"] for event in read_events(tmp_path)] == ["fine"]


def test_a_terminal_gets_a_form_for_people_and_the_file_stays_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", stream)
    set_up_logs(LogSettings(), tmp_path, PROCESS)
    get_logger("jobs").info("event", number=7)
    assert "event" in stream.getvalue()
    assert not stream.getvalue().startswith("{")
    assert read_events(tmp_path)[0]["number"] == 7
