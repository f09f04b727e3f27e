"""Mutant of either process (MUTANT_OF=api or infer): files are published without an fsync."""

from __future__ import annotations

import os
import sys

from tests.faults.null_infer import load_null
from umrgen_api import __main__ as api
from umrgen_core import files
from umrgen_infer import __main__ as infer


class _LazyOs:
    """The module `os` as files.py sees it, whose fsync does nothing."""

    def __getattr__(self, name: str) -> object:
        return (lambda _: None) if name == "fsync" else getattr(os, name)


if __name__ == "__main__":
    files.os = _LazyOs()  # type: ignore[assignment]
    infer.load_painter = load_null
    sys.exit(api.main() if os.environ["MUTANT_OF"] == "api" else infer.main())
