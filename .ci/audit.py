"""Asks for known vulnerabilities of every pinned package. Fails only for those that a newer version mends.

One without a fix is printed and stays advisory; so is what could not be asked, where no list is reachable.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TIMEOUT_S = 300


def main() -> int:
    """Print what was found; 1 when a fix exists for any of it."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", "constraints.txt", "--no-deps", "--disable-pip"]
    try:
        done = subprocess.run(
            [*command, "--format", "json", "--progress-spinner", "off"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
        )
        packages = json.loads(done.stdout)["dependencies"]
    except subprocess.TimeoutExpired:
        return _report_unasked(f"no answer in {TIMEOUT_S} s")
    except ValueError:
        return _report_unasked(done.stderr.strip().rpartition("\n")[2])
    return _report(packages)


def _report_unasked(reason: str) -> int:
    print(f"audit: the lists of vulnerabilities could not be asked ({reason}); nothing was audited")
    return 0


def _report(packages: list[dict[str, Any]]) -> int:
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    found = [(package, entry) for package in packages for entry in package.get("vulns", [])]
    for package, entry in found:
        fixes = ", ".join(entry["fix_versions"]) or "none: advisory"
        print(f"audit: {package['name']} {package['version']}: {entry['id']}; fixed in {fixes}")
    unasked = f", {len(skipped)} could not be asked about" if skipped else ""
    print(f"audit: {len(packages) - len(skipped)} packages audited, {len(found)} vulnerabilities{unasked}")
    return int(any(entry["fix_versions"] for _, entry in found))


if __name__ == "__main__":
    sys.exit(main())
