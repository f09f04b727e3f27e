"""How old the newest backup is, where the timer of the units puts them."""

from __future__ import annotations

import time
from collections.abc import Iterator

from umrgen_cli.doctor.findings import Finding, Patient, good, warning
from umrgen_cli.figures import show_span

OLD_S = 48 * 3600.0


def check_backups(patient: Patient) -> Iterator[Finding]:
    """Nothing is said where there is no such folder: backups may be made in another way."""
    folder = patient.backups
    if not folder.is_dir():
        return
    whole = [path for path in folder.iterdir() if path.is_dir() and not path.name.endswith(".partial")]
    newest = max(whole, key=lambda path: path.stat().st_mtime, default=None)
    advice = (
        "run 'systemctl start umrgen-backup' and see its log; 'systemctl enable --now umrgen-backup.timer' for each day"
    )
    if newest is None:
        yield warning("backups", f"none in {folder}", advice)
        return
    age_s = time.time() - newest.stat().st_mtime
    seen = f"{len(whole)} in {folder}, the newest {show_span(age_s)} old"
    yield warning("backups", seen, advice) if age_s > OLD_S else good("backups", seen)
