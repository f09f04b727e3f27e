from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.conftest import ROOT
from umrgen_core.config import Settings
from umrgen_core.database import Database
from umrgen_core.errors import SchemaError
from umrgen_core.presence import Presence, check_integrity, list_living

HOLD = """
import sys
from pathlib import Path
from umrgen_core.presence import Presence
presence = Presence(Path(sys.argv[1]), "other")
print("ready", flush=True)
sys.stdin.readline()
presence.withdraw()
"""


def start_other(data_dir: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(data_dir)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


def test_a_living_process_is_not_abandoned_and_a_killed_one_is(tmp_path: Path) -> None:
    ours = Presence(tmp_path, "ours")
    other = start_other(tmp_path)
    assert ours.list_abandoned() == []
    assert {path.name for path in list_living(tmp_path)} == {"ours.open", "other.open"}
    other.kill()
    other.wait()
    assert [path.name for path in ours.list_abandoned()] == ["other.open"]
    ours.forget(ours.list_abandoned())
    assert ours.list_abandoned() == []


def test_a_clean_stop_leaves_no_marker(tmp_path: Path) -> None:
    other = start_other(tmp_path)
    other.communicate("\n", timeout=20)
    assert list((tmp_path / "run").iterdir()) == []


def test_many_that_start_and_look_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    failed: list[OSError] = []

    def come_and_go(name: str) -> None:
        try:
            for number in range(30):
                presence = Presence(tmp_path, f"{name}-{number}")
                presence.list_abandoned()
                presence.withdraw()
        except OSError as error:
            failed.append(error)

    threads = [threading.Thread(target=come_and_go, args=(f"p{i}",)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


async def test_a_good_database_passes_and_a_damaged_one_names_the_way_out(
    database: Database, settings: Settings, tmp_path: Path
) -> None:
    check_integrity(settings.storage.database)
    copy = tmp_path / "copy.sqlite3"
    content = bytearray(settings.storage.database.read_bytes())
    for page in range(2, len(content) // 4096):
        content[page * 4096 : page * 4096 + 64] = b"\xff" * 64
    copy.write_bytes(content)
    with pytest.raises(SchemaError, match="umrgen-admin restore"):
        check_integrity(copy)


def test_a_start_that_fails_ends_the_process(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "run").write_text("in the way")
    environment = {**os.environ, "UMRGEN_STORAGE__DATA_DIR": str(tmp_path / "data"), "UMRGEN_API__PORT": "0"}
    command = [sys.executable, "-m", "umrgen_api", "--config", str(ROOT / "config.toml")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "umrgen-api: " in done.stderr
