"""Write every hostile file to a folder: `python -m tests.hostile FOLDER`."""

from __future__ import annotations

import argparse
from pathlib import Path

from tests.hostile.corpus import corpus


def main() -> None:
    """Write them and a list of what must become of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for case in corpus():
        (folder / case.filename).write_bytes(case.make())
        lines.append(f"{case.filename}\t{case.fate}\n")
    (folder / "fates.tsv").write_text("".join(lines))


if __name__ == "__main__":
    main()
