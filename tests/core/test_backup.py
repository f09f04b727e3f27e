from __future__ import annotations

from pathlib import Path

from tests.conftest import make_settings
from umrgen_core.backup import back_up, restore


def test_a_restore_keeps_the_secret_of_the_box_and_no_backup_holds_it(tmp_path: Path) -> None:
    storage = make_settings(tmp_path / "data").storage
    secret = storage.data_dir / "secret"
    secret.write_bytes(b"s" * 32)
    secret.chmod(0o600)
    back_up(storage, tmp_path / "backup")
    assert not (tmp_path / "backup" / "secret").exists()
    restore(storage, tmp_path / "backup")
    assert secret.read_bytes() == b"s" * 32
    assert secret.stat().st_mode & 0o777 == 0o600
